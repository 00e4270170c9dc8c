//! What takes a place away, and what stands in the way of it.
//!
//! Invariant: whoever asks what uses a place, and then removes it, holds [`Tx::lock_placement`].

use waangu_kernel::Fault;

use crate::db::{Tx, column};

/// A kind of declared thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An environment.
    Environment,
    /// A region.
    Region,
    /// A country.
    Country,
    /// A profile.
    Profile,
    /// A cell.
    Cell,
    /// From how much use on a tier is proposed.
    Threshold,
    /// What may follow from a proposal by itself.
    Policy,
}

impl Kind {
    /// All kinds; what is named by another comes first.
    pub const ALL: [Self; 7] = [
        Self::Environment,
        Self::Region,
        Self::Country,
        Self::Profile,
        Self::Cell,
        Self::Threshold,
        Self::Policy,
    ];

    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Region => "region",
            Self::Country => "country",
            Self::Profile => "profile",
            Self::Cell => "cell",
            Self::Threshold => "threshold",
            Self::Policy => "policy",
        }
    }

    /// What uses one of this kind, by name and number.
    fn users(self) -> &'static str {
        match self {
            Self::Environment => {
                "select 'cells', count(*) from registry.cell where environment = $1"
            }
            Self::Region => {
                "select 'cells', count(*) from registry.cell where region = $1
                 union all
                 select 'countries', count(*) from registry.country_region where region = $1"
            }
            Self::Country => {
                "select 'tenants', count(*) from registry.tenant
                  where country = $1 and state <> 'deleted'"
            }
            Self::Profile => {
                "select 'tenants', count(*) from registry.tenant
                  where profile = $1 and state <> 'deleted'"
            }
            Self::Cell => {
                "select 'tenants', count(*) from registry.tenant
                  where cell = $1 and state <> 'deleted'
                 union all
                 select 'moves', count(*) from registry.relocation
                  where $1 in (from_cell, to_cell)
                    and (finished_at is null or clean_at is not null and cleaned_at is null)"
            }
            // Without it, the platform's default holds.
            Self::Threshold | Self::Policy => "select '', 0 where $1::text is null",
        }
    }

    fn removal(self) -> &'static [&'static str] {
        match self {
            Self::Environment => &["delete from registry.environment where id = $1"],
            Self::Region => &["delete from registry.region where id = $1"],
            Self::Country => &[
                "delete from registry.country_region where country = $1",
                "delete from registry.country where code = $1",
            ],
            Self::Profile => &["delete from registry.profile where id = $1"],
            Self::Cell => &["delete from registry.cell where id = $1"],
            Self::Threshold => &["delete from registry.threshold where tier = $1"],
            Self::Policy => &["delete from registry.advisor_policy where scope = $1"],
        }
    }
}

impl Tx<'_> {
    /// What uses a declared thing, for people: `3 tenants`. Empty, if it may go.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_uses(&self, kind: Kind, id: &str) -> Result<Vec<String>, Fault> {
        let sql = format!(
            "select name || '' as name, n from ({}) as used (name, n) where n > 0",
            kind.users()
        );
        self.rows(&sql, &[&id])
            .await?
            .iter()
            .map(|row| {
                let name: String = column(row, "name")?;
                let count: i64 = column(row, "n")?;
                Ok(format!("{count} {name}"))
            })
            .collect()
    }

    /// Removes a declared thing that nothing uses.
    ///
    /// # Errors
    /// `internal` when something uses it; `database-unavailable`.
    pub async fn remove_declared(&self, kind: Kind, id: &str) -> Result<(), Fault> {
        for sql in kind.removal() {
            self.execute(sql, &[&id]).await?;
        }
        Ok(())
    }
}
