//! The registry of id kinds. Each is a type of its own, so ids of two kinds cannot be swapped, and
//! each is shown with its prefix (`ten_42`, `op_…`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fault::{self, Fault};

/// A tenant's number: issued once per platform, never reused, the leading key of every tenant row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(i64);

impl TenantId {
    /// Wraps a number that the registry issued; refuses what it can't have issued (≤ 0).
    ///
    /// # Errors
    /// `invalid-field` when the number is not positive.
    pub fn new(number: i64) -> Result<Self, Fault> {
        if number > 0 {
            Ok(Self(number))
        } else {
            Err(fault::INVALID_FIELD.fault(format!("`{number}` is not a tenant number")))
        }
    }

    /// The number, as it stands in `tenant_id` columns.
    pub fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ten_{}", self.0)
    }
}

impl FromStr for TenantId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        text.strip_prefix("ten_")
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| bad_id("ten_", text))
            .and_then(Self::new)
    }
}

impl TryFrom<String> for TenantId {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> Self {
        id.to_string()
    }
}

fn bad_id(prefix: &str, text: &str) -> Fault {
    fault::INVALID_FIELD.fault(format!(
        "`{}` is not an id of the form `{prefix}…`",
        fault::excerpt(text)
    ))
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id; UUIDv7 (RFC 9562 §5.7), so ids sort by their time of birth.
            #[expect(clippy::disallowed_methods, reason = "the id registry is where ids are born")]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Wraps a stored UUID.
            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID to store.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self, Fault> {
                text.strip_prefix($prefix)
                    .and_then(|hex| Uuid::try_parse(hex).ok())
                    .map(Self)
                    .ok_or_else(|| bad_id($prefix, text))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Fault;

            fn try_from(text: String) -> Result<Self, Fault> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

uuid_id!(
    /// A long-running change to a tenant.
    OperationId, "op_"
);
uuid_id!(
    /// A package on its way to every namespace of its module.
    RolloutId, "rol_"
);
uuid_id!(
    /// One look at all cells for what has drifted.
    RepairId, "rep_"
);
uuid_id!(
    /// A tenant on its way to another place.
    RelocationId, "mov_"
);
uuid_id!(
    /// A person (or machine account) of one tenant; the `sub` of its tokens.
    UserId, "usr_"
);
uuid_id!(
    /// One request through the gateway, repeated in logs, audit and `app.request_id`.
    RequestId, "req_"
);
uuid_id!(
    /// An operator's wish for a new key of the gateway.
    RotationId, "rot_"
);

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that stores our ids must be able to send them back.
    #[test]
    fn ids_survive_a_round_trip() {
        let id = OperationId::generate();
        assert_eq!(id.to_string().parse::<OperationId>().unwrap(), id);
        let tenant = TenantId::new(42).unwrap();
        assert_eq!(tenant.to_string(), "ten_42");
        assert_eq!("ten_42".parse::<TenantId>().unwrap(), tenant);
    }

    /// An id of one kind must not pass for another.
    #[test]
    fn kinds_do_not_mix() {
        assert!(
            UserId::generate()
                .to_string()
                .parse::<OperationId>()
                .is_err()
        );
        assert!("ten_0".parse::<TenantId>().is_err());
        assert!("42".parse::<TenantId>().is_err());
    }
}
