//! Plans, what profiles give, and what tenants have of their own: the stored layers of flags and
//! limits. What they come to is the kernel's business (`waangu_kernel::entitlement`).
//!
//! Invariant: a change of a tenant's own values raises its `revision` and marks its row; one of a plan
//! or a profile wakes the gateways without touching any tenant.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Row;
use waangu_kernel::entitlement::{Layers, Values};
use waangu_kernel::{Fault, PlanId, ProfileId, TenantId, fault};

use crate::db::{Tx, column, internal, parsed};

/// A plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its id.
    pub id: PlanId,
    /// Title by language.
    pub title: BTreeMap<String, String>,
    /// Its values.
    pub entitlements: Values,
    /// Grows by one at each change.
    pub revision: i64,
    /// How many live tenants have it.
    pub tenants: i64,
}

/// Everything that a tenant has by way of flags and limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// By its plan.
    pub plan: Option<Values>,
    /// By its profile.
    pub profile: Option<Values>,
    /// Of its own.
    pub own: Option<Values>,
}

impl Held {
    /// The same, to be looked at.
    pub fn layers(&self) -> Layers<'_> {
        Layers::new(self.plan.as_ref(), self.profile.as_ref(), self.own.as_ref())
    }
}

/// What many tenants share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sets {
    /// By plan.
    pub plans: HashMap<PlanId, Values>,
    /// By profile.
    pub profiles: HashMap<ProfileId, Values>,
}

/// All plans, or the one with this id.
const PLANS: &str = "select p.*
                          , (select count(*) from registry.tenant t
                              where t.plan = p.id and t.state <> 'deleted') as tenants
                       from registry.plan p
                      where $1::text is null or p.id = $1
                      order by p.id";

impl Tx<'_> {
    /// Sets a tenant's own value.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_entitlement(
        &self,
        id: TenantId,
        key: &str,
        value: &serde_json::Value,
    ) -> Result<(), Fault> {
        let sql = "insert into registry.entitlement (tenant_id, key, value)
                   values ($1, $2, $3)
                   on conflict (tenant_id, key) do update set value = excluded.value";
        self.execute(sql, &[&id.number(), &key, value])
            .await
            .map(drop)
    }

    /// Removes a tenant's own value; says whether there was one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn delete_entitlement(&self, id: TenantId, key: &str) -> Result<bool, Fault> {
        let sql = "delete from registry.entitlement where tenant_id = $1 and key = $2";
        Ok(self.execute(sql, &[&id.number(), &key]).await? > 0)
    }

    /// All that a tenant has.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn get_held(&self, id: TenantId) -> Result<Held, Fault> {
        let sql = "select p.entitlements as plan
                        , f.limits as profile
                        , (select jsonb_object_agg(e.key, e.value)
                             from registry.entitlement e
                            where e.tenant_id = t.id) as own
                     from registry.tenant t
                     left join registry.plan p on p.id = t.plan
                     left join registry.profile f on f.id = t.profile
                    where t.id = $1";
        let row = self.one(sql, &[&id.number()]).await?;
        Ok(Held {
            plan: values_from(&row, "plan")?,
            profile: values_from(&row, "profile")?,
            own: values_from(&row, "own")?,
        })
    }

    /// Creates a plan or replaces its title and values; returns whether it is new.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_plan(
        &self,
        id: &PlanId,
        title: &BTreeMap<String, String>,
        entitlements: &Values,
    ) -> Result<bool, Fault> {
        let sql = "insert into registry.plan (id, title, entitlements)
                   values ($1, $2, $3)
                   on conflict (id) do update
                   set title = excluded.title
                     , entitlements = excluded.entitlements
                     , revision = registry.plan.revision + 1
                   returning revision";
        let title = serde_json::to_value(title).map_err(internal)?;
        let entitlements = serde_json::to_value(entitlements).map_err(internal)?;
        let row = self
            .one(sql, &[&id.as_str(), &title, &entitlements])
            .await?;
        let revision: i64 = column(&row, "revision")?;
        Ok(revision == 1)
    }

    /// The plan of this id. Nobody removes or changes it until this transaction ends.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn lock_plan(&self, id: &PlanId) -> Result<Option<Plan>, Fault> {
        let sql = "select from registry.plan where id = $1 for update";
        self.rows(sql, &[&id.as_str()]).await?;
        self.get_plan(id).await
    }

    /// The plan of this id.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn get_plan(&self, id: &PlanId) -> Result<Option<Plan>, Fault> {
        let row = self.row(PLANS, &[&Some(id.as_str())]).await?;
        row.as_ref().map(plan_from).transpose()
    }

    /// All plans.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_plans(&self) -> Result<Vec<Plan>, Fault> {
        let rows = self.rows(PLANS, &[&None::<&str>]).await?;
        rows.iter().map(plan_from).collect()
    }

    /// Removes a plan; says whether there was one. Those who are gone have it no more.
    ///
    /// # Errors
    /// `plan-in-use`; `database-unavailable`.
    pub async fn delete_plan(&self, id: &PlanId) -> Result<bool, Fault> {
        let sql = "update registry.tenant set plan = null where plan = $1 and state = 'deleted'";
        self.execute(sql, &[&id.as_str()]).await?;
        let sql = "delete from registry.plan where id = $1";
        Ok(self.execute(sql, &[&id.as_str()]).await? > 0)
    }

    /// Gives a tenant a plan, or takes it away.
    ///
    /// # Errors
    /// `plan-unknown`; `database-unavailable`.
    pub async fn put_tenant_plan(&self, id: TenantId, plan: Option<&PlanId>) -> Result<(), Fault> {
        if let Some(plan) = plan {
            // Shared, so that many may be given one plan at once while nobody removes it.
            let sql = "select from registry.plan where id = $1 for key share";
            if self.row(sql, &[&plan.as_str()]).await?.is_none() {
                return Err(fault::PLAN_UNKNOWN
                    .fault(format!("there is no plan `{plan}`"))
                    .field("plan"));
            }
        }
        let sql = "update registry.tenant
                      set plan = $2
                        , revision = revision + 1
                    where id = $1";
        self.execute(sql, &[&id.number(), &plan.map(PlanId::as_str)])
            .await
            .map(drop)
    }

    /// How many people a tenant has. Exact while the tenant is locked ([`Tx::lock_tenant`]), because
    /// whoever adds one locks it too.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn count_users(&self, id: TenantId) -> Result<i64, Fault> {
        let sql = "select count(*) as users from registry.app_user where tenant_id = $1";
        column(&self.one(sql, &[&id.number()]).await?, "users")
    }
}

/// A nullable column of values.
pub(crate) fn values_from(row: &Row, name: &'static str) -> Result<Option<Values>, Fault> {
    let document: Option<serde_json::Value> = column(row, name)?;
    document
        .map(serde_json::from_value)
        .transpose()
        .map_err(internal)
}

/// All sets, from the rows of `registry.entitlement_set`.
pub(crate) fn sets_from(rows: &[Row]) -> Result<Sets, Fault> {
    let mut sets = Sets::default();
    for row in rows {
        let values = values_from(row, "entitlements")?.unwrap_or_default();
        match column(row, "kind")? {
            "plan" => drop(sets.plans.insert(parsed(row, "id")?, values)),
            _ => drop(sets.profiles.insert(parsed(row, "id")?, values)),
        }
    }
    Ok(sets)
}

fn plan_from(row: &Row) -> Result<Plan, Fault> {
    let title: serde_json::Value = column(row, "title")?;
    Ok(Plan {
        id: parsed(row, "id")?,
        title: serde_json::from_value(title).map_err(internal)?,
        entitlements: values_from(row, "entitlements")?.unwrap_or_default(),
        revision: column(row, "revision")?,
        tenants: column(row, "tenants")?,
    })
}
