//! A tenant's flags and limits, as the module's own manifest declares them.
//!
//! Invariants: what is not in the signed context is the manifest's default, and so is a value that does
//! not fit the manifest, because gateway and module may be one version apart; a key that the manifest
//! does not declare is the module's defect, found at its first use.

use serde_json::Value;
use waangu_kernel::entitlement::{Catalogue, Kind, Layers, Values};
use waangu_kernel::fault::excerpt;
use waangu_kernel::{Fault, fault};
use waangu_tenancy::TenantTx;

/// Flags and limits of the request's tenant.
#[derive(Debug, Clone, Copy)]
pub struct Flags<'a> {
    declared: &'a Catalogue,
    given: &'a Values,
}

/// How much of something a tenant may have, and how to find out what it has.
#[derive(Debug, Clone, Copy)]
pub struct Quota<'q> {
    /// The limit's key, `module.key`.
    pub limit: &'q str,
    /// The field of the request that is to blame when there is no room.
    pub field: &'static str,
    /// Takes the tenant's turn for `$1`, so that two requests at once can't both have the last place.
    /// It runs only where there is a limit, and holds until the transaction ends.
    pub turn: &'static str,
    /// Counts what the tenant has, but no further than `$1`, in a column `held` of type bigint.
    pub count: &'static str,
}

impl<'a> Flags<'a> {
    pub(crate) fn new(declared: &'a Catalogue, given: &'a Values) -> Self {
        Self { declared, given }
    }

    /// A flag that is on or off.
    ///
    /// # Errors
    /// `internal` when the manifest declares no such flag.
    pub fn bool(&self, key: &str) -> Result<bool, Fault> {
        let value = self.find(key, Kind::Bool)?.as_bool();
        value.ok_or_else(|| undeclared(key, Kind::Bool))
    }

    /// A number.
    ///
    /// # Errors
    /// As [`Flags::bool`].
    pub fn number(&self, key: &str) -> Result<f64, Fault> {
        let value = self.find(key, Kind::Number)?.as_f64();
        value.ok_or_else(|| undeclared(key, Kind::Number))
    }

    /// A text.
    ///
    /// # Errors
    /// As [`Flags::bool`].
    pub fn string(&self, key: &str) -> Result<&'a str, Fault> {
        let value = self.find(key, Kind::String)?.as_str();
        value.ok_or_else(|| undeclared(key, Kind::String))
    }

    /// Any JSON.
    ///
    /// # Errors
    /// As [`Flags::bool`].
    pub fn json(&self, key: &str) -> Result<&'a Value, Fault> {
        self.find(key, Kind::Json)
    }

    /// A limit; `None` is as much as the tenant likes.
    ///
    /// # Errors
    /// As [`Flags::bool`].
    pub fn limit(&self, key: &str) -> Result<Option<u64>, Fault> {
        Ok(self.find(key, Kind::Limit)?.as_u64())
    }

    /// Refuses one more of something the tenant has as much of as it may. Ask in the transaction that
    /// adds it, before it is added; `subject` is what it will be called.
    ///
    /// # Errors
    /// `limit-reached`; `internal` as [`Flags::bool`]; the transaction's own.
    pub async fn check_room(
        &self,
        tx: &mut TenantTx,
        quota: &Quota<'_>,
        subject: &str,
    ) -> Result<(), Fault> {
        let Some(limit) = self.limit(quota.limit)? else {
            return Ok(());
        };
        tx.execute(quota.turn, &[&subject]).await?;
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let row = tx.query_opt(quota.count, &[&most]).await?;
        let held: i64 = row
            .as_ref()
            .map(|row| crate::column(row, "held"))
            .transpose()?
            .unwrap_or(0);
        if held < most {
            return Ok(());
        }
        let unit = self
            .declared
            .get(quota.limit)
            .and_then(|one| one.unit.as_deref())
            .unwrap_or_default();
        Err(fault::LIMIT_REACHED
            .fault(format!("at most {limit} {unit} (`{}`)", quota.limit))
            .field(quota.field))
    }

    fn find(&self, key: &str, kind: Kind) -> Result<&'a Value, Fault> {
        let declared = self.declared.get(key).filter(|one| one.kind == kind);
        let declared = declared.ok_or_else(|| undeclared(key, kind))?;
        let layers = Layers::new(None, None, Some(self.given));
        Ok(layers.find(declared).0)
    }
}

fn undeclared(key: &str, kind: Kind) -> Fault {
    fault::INTERNAL
        .fault("the module asks for a flag that it does not have")
        .cause(format!("no {kind} `{}` in module.toml", excerpt(key)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waangu_kernel::manifest::Manifest;

    use super::*;

    const MANIFEST: &str = r#"
        id = "crm"
        version = "0.1.0"
        title = { en = "CRM" }
        routes = []
        [permissions]
        [roles]
        [flags.board]
        type = "bool"
        default = true
        description = "A board"
        [flags.rate]
        type = "number"
        default = 1.5
        description = "A rate"
        [flags.greeting]
        type = "string"
        default = "Hello"
        description = "A greeting"
        [flags.theme]
        type = "json"
        default = {}
        description = "A theme"
        [limits.people]
        default = 3
        unit = "people"
        description = "People"
    "#;

    /// A module must read what the tenant has, and its own default where the gateway, perhaps of
    /// another version, says nothing that it understands.
    #[test]
    fn values_are_read_by_the_modules_own_manifest() {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let declared = Catalogue::of_module(&manifest);
        let none = Values::new();
        let flags = Flags::new(&declared, &none);
        assert!(flags.bool("crm.board").unwrap());
        assert!((flags.number("crm.rate").unwrap() - 1.5).abs() < f64::EPSILON);
        assert_eq!(flags.string("crm.greeting").unwrap(), "Hello");
        assert_eq!(flags.json("crm.theme").unwrap(), &json!({}));
        assert_eq!(flags.limit("crm.people").unwrap(), Some(3));

        let given = json!({
            "crm.board": false, "crm.rate": 2, "crm.greeting": 7, "crm.people": null, "users": 1,
        });
        let given: Values = serde_json::from_value(given).unwrap();
        let flags = Flags::new(&declared, &given);
        assert!(!flags.bool("crm.board").unwrap());
        assert!((flags.number("crm.rate").unwrap() - 2.0).abs() < f64::EPSILON);
        assert_eq!(flags.string("crm.greeting").unwrap(), "Hello");
        assert_eq!(flags.limit("crm.people").unwrap(), None);
        for defect in [
            flags.bool("crm.bord").map(drop),
            flags.bool("crm.rate").map(drop),
            flags.limit("users").map(drop),
        ] {
            assert_eq!(defect.unwrap_err().code(), "internal");
        }
    }
}
