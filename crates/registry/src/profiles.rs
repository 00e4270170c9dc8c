//! Profiles, sector blueprints as data; and where single tenants differ from theirs.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Row;
use waangu_kernel::{Fault, ModuleId, ProfileId, RoleName, Sla, TenantId, Tier, fault};

use crate::db::{Tx, column, internal, parsed};
use crate::places::parsed_list;

/// A sector blueprint.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its id.
    pub id: ProfileId,
    /// Title by language.
    pub title: BTreeMap<String, String>,
    /// The tier its tenants get.
    pub tier: Tier,
    /// What they are promised.
    pub sla: Sla,
    /// Whether data must stay in the tenant's own country.
    pub in_country: bool,
    /// Modules that are switched on at birth.
    pub modules: Vec<ModuleId>,
    /// Roles that a sector's people usually need, the first administrator's first.
    pub roles: Vec<RoleName>,
    /// How long their audit is kept at least; none: for ever.
    pub retention_days: Option<i32>,
    /// Whether people need a second factor.
    pub mfa: Mfa,
    /// Which reports are made, how often.
    pub reports: Vec<Report>,
    /// Limits and flags by key.
    pub limits: BTreeMap<String, Value>,
}

/// Whether people need a second factor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mfa {
    /// Who wants to.
    #[default]
    Optional,
    /// Everybody.
    Required,
}

impl Mfa {
    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl FromStr for Mfa {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Optional, Self::Required]
            .into_iter()
            .find(|mfa| mfa.as_str() == text)
            .ok_or_else(|| {
                fault::INVALID_FIELD
                    .fault(format!(
                        "`{}` is neither optional nor required",
                        fault::excerpt(text)
                    ))
                    .field("mfa")
            })
    }
}

/// A report that is made again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What it tells.
    pub kind: String,
    /// `day`, `week`, `month`, `quarter` or `year`.
    pub every: String,
}

impl Tx<'_> {
    /// Creates or updates a profile.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_profile(&self, profile: &Profile) -> Result<(), Fault> {
        let sql = "insert into registry.profile
                   (id, title, tier, sla, in_country, modules, roles
                   , retention_days, mfa, reports, limits)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                   on conflict (id) do update
                   set title = excluded.title
                     , tier = excluded.tier
                     , sla = excluded.sla
                     , in_country = excluded.in_country
                     , modules = excluded.modules
                     , roles = excluded.roles
                     , retention_days = excluded.retention_days
                     , mfa = excluded.mfa
                     , reports = excluded.reports
                     , limits = excluded.limits";
        let title = serde_json::to_value(&profile.title).map_err(internal)?;
        let reports = serde_json::to_value(&profile.reports).map_err(internal)?;
        let limits = serde_json::to_value(&profile.limits).map_err(internal)?;
        let modules: Vec<&str> = profile.modules.iter().map(ModuleId::as_str).collect();
        let roles: Vec<&str> = profile.roles.iter().map(RoleName::as_str).collect();
        self.execute(
            sql,
            &[
                &profile.id.as_str(),
                &title,
                &profile.tier.as_str(),
                &profile.sla.as_str(),
                &profile.in_country,
                &modules,
                &roles,
                &profile.retention_days,
                &profile.mfa.as_str(),
                &reports,
                &limits,
            ],
        )
        .await
        .map(drop)
    }

    /// The profile of this id.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn get_profile(&self, id: &ProfileId) -> Result<Option<Profile>, Fault> {
        let sql = "select * from registry.profile where id = $1";
        self.row(sql, &[&id.as_str()])
            .await?
            .as_ref()
            .map(profile_from)
            .transpose()
    }

    /// All profiles.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_profiles(&self) -> Result<Vec<Profile>, Fault> {
        let sql = "select * from registry.profile order by id";
        let rows = self.rows(sql, &[]).await?;
        rows.iter().map(profile_from).collect()
    }

    /// Lets a tenant differ from its profile.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_override(&self, id: TenantId, key: &str, value: &Value) -> Result<(), Fault> {
        let sql = "insert into registry.tenant_override values ($1, $2, $3)
                   on conflict (tenant_id, key) do update set value = excluded.value";
        self.execute(sql, &[&id.number(), &key, value])
            .await
            .map(drop)
    }

    /// Lets a tenant be as its profile says; says whether it differed.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn delete_override(&self, id: TenantId, key: &str) -> Result<bool, Fault> {
        let sql = "delete from registry.tenant_override where tenant_id = $1 and key = $2";
        Ok(self.execute(sql, &[&id.number(), &key]).await? > 0)
    }

    /// Where a tenant differs from its profile.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_overrides(&self, id: TenantId) -> Result<BTreeMap<String, Value>, Fault> {
        let sql = "select key, value from registry.tenant_override where tenant_id = $1";
        let rows = self.rows(sql, &[&id.number()]).await?;
        rows.iter()
            .map(|row| Ok((column(row, "key")?, column(row, "value")?)))
            .collect()
    }
}

fn profile_from(row: &Row) -> Result<Profile, Fault> {
    Ok(Profile {
        id: parsed(row, "id")?,
        title: document(row, "title")?,
        tier: parsed(row, "tier")?,
        sla: parsed(row, "sla")?,
        in_country: column(row, "in_country")?,
        modules: parsed_list(row, "modules")?,
        roles: parsed_list(row, "roles")?,
        retention_days: column(row, "retention_days")?,
        mfa: parsed(row, "mfa")?,
        reports: document(row, "reports")?,
        limits: document(row, "limits")?,
    })
}

fn document<T: serde::de::DeserializeOwned>(row: &Row, name: &'static str) -> Result<T, Fault> {
    let value: Value = column(row, name)?;
    serde_json::from_value(value).map_err(internal)
}
