//! Tenants, their activations and entitlements.
//!
//! Invariant: every change that the cells must follow raises `generation` in the same statement;
//! the reconciler is done with a tenant when `observed_generation` has caught up.

use std::str::FromStr;

use time::OffsetDateTime;
use tokio_postgres::Row;
use waangu_kernel::{
    CellId, CountryCode, Fault, Placement, PlanId, ProfileId, Slug, TenantId, Tier, fault,
};

use crate::db::{Tx, column, internal, parsed};

/// What the platform wants a tenant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// Served.
    Active,
    /// Kept, not served.
    Suspended,
    /// Gone.
    Deleted,
}

impl Desired {
    /// The name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
        }
    }
}

impl FromStr for Desired {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Active, Self::Suspended, Self::Deleted]
            .into_iter()
            .find(|desired| desired.as_str() == text)
            .ok_or_else(|| internal(format!("desired state {text}")))
    }
}

/// What the platform last saw a tenant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its place is being made.
    Provisioning,
    /// Served.
    Active,
    /// Kept, not served.
    Suspended,
    /// Its data is being removed.
    Deleting,
    /// Gone; only the audit and, for a grace time, the slug are kept.
    Deleted,
}

impl State {
    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }
}

impl FromStr for State {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [
            Self::Provisioning,
            Self::Active,
            Self::Suspended,
            Self::Deleting,
            Self::Deleted,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| internal(format!("tenant state {text}")))
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its number.
    pub id: TenantId,
    /// Its name in addresses.
    pub slug: Slug,
    /// Its name for people.
    pub name: String,
    /// Its country.
    pub country: CountryCode,
    /// Its parent's number and slug.
    pub parent: Option<(TenantId, Slug)>,
    /// The blueprint it was made from.
    pub profile: Option<ProfileId>,
    /// What it has subscribed to.
    pub plan: Option<PlanId>,
    /// Where its data lives.
    pub placement: Placement,
    /// Why there.
    pub reasons: Vec<String>,
    /// What it shall be.
    pub desired: Desired,
    /// What it is.
    pub state: State,
    /// Version of what is wanted of the cells; half of its ETag.
    pub generation: i64,
    /// Version of its plan and its own flags and limits; the other half.
    pub revision: i64,
    /// Version that the cells have reached.
    pub observed_generation: i64,
    /// Failed attempts at the current generation.
    pub attempts: i32,
    /// The last failure.
    pub last_error: Option<String>,
    /// Its birth.
    pub created_at: OffsetDateTime,
}

/// A tenant to be born.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Its name in addresses.
    pub slug: Slug,
    /// Its name for people.
    pub name: String,
    /// Its country.
    pub country: CountryCode,
    /// Its parent.
    pub parent: Option<TenantId>,
    /// The blueprint.
    pub profile: Option<ProfileId>,
    /// The isolation model.
    pub tier: Tier,
    /// The chosen cell.
    pub cell: CellId,
    /// The chosen bucket database in the schema tier, else 0.
    pub bucket: i32,
    /// Why there.
    pub reasons: Vec<String>,
}

/// What a PATCH may change.
#[derive(Debug, Clone, Default)]
pub struct TenantPatch {
    /// A new name.
    pub name: Option<String>,
    /// A new parent (`Some(None)` makes it a root).
    pub parent: Option<Option<TenantId>>,
}

/// One page of tenants.
#[derive(Debug)]
pub struct TenantPage {
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// The number to continue after, if there are more.
    pub next: Option<i64>,
}

pub(crate) const SELECT: &str = "select t.*, p.slug as parent_slug
                        from registry.tenant t
                        left join registry.tenant p on p.id = t.parent_id ";

impl Tx<'_> {
    /// Births a tenant. A deleted tenant's slug is free again after `grace_seconds`.
    ///
    /// # Errors
    /// `slug-taken`; `database-unavailable`.
    pub async fn create_tenant(
        &self,
        new: &NewTenant,
        grace_seconds: i64,
    ) -> Result<TenantId, Fault> {
        let sql = "update registry.tenant
                      set name_released = true
                    where slug = $1
                      and not name_released
                      and state = 'deleted'
                      and deleted_at <= now() - make_interval(secs => $2::bigint::double precision)";
        self.execute(sql, &[&new.slug.as_str(), &grace_seconds])
            .await?;
        let sql = "insert into registry.tenant
                   (slug, name, country, parent_id, profile, tier, cell, bucket, reasons)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                   returning id";
        let row = self
            .one(
                sql,
                &[
                    &new.slug.as_str(),
                    &new.name,
                    &new.country.as_str(),
                    &new.parent.map(TenantId::number),
                    &new.profile.as_ref().map(ProfileId::as_str),
                    &new.tier.as_str(),
                    &new.cell.as_str(),
                    &new.bucket,
                    &new.reasons,
                ],
            )
            .await?;
        TenantId::new(column(&row, "id")?)
    }

    /// The live tenant of this slug (deleted ones are not found).
    ///
    /// # Errors
    /// `tenant-not-found`; `database-unavailable`.
    pub async fn get_tenant(&self, slug: &Slug) -> Result<Tenant, Fault> {
        let sql = format!("{SELECT} where t.slug = $1 and t.state <> 'deleted'");
        let row = self.row(&sql, &[&slug.as_str()]).await?;
        row.as_ref()
            .map(tenant_from)
            .transpose()?
            .ok_or_else(|| not_found(slug))
    }

    /// As [`Tx::get_tenant`], and keeps others from changing it until this transaction ends.
    ///
    /// # Errors
    /// `tenant-not-found`; `tenant-deleting`; `database-unavailable`.
    pub async fn lock_tenant(&self, slug: &Slug) -> Result<Tenant, Fault> {
        let sql = format!("{SELECT} where t.slug = $1 and t.state <> 'deleted' for update of t");
        let row = self.row(&sql, &[&slug.as_str()]).await?;
        let tenant = row
            .as_ref()
            .map(tenant_from)
            .transpose()?
            .ok_or_else(|| not_found(slug))?;
        if tenant.desired == Desired::Deleted {
            return Err(fault::TENANT_DELETING.fault(format!("tenant `{slug}` is being deleted")));
        }
        Ok(tenant)
    }

    /// The tenant of this number, deleted or not.
    ///
    /// # Errors
    /// `internal` when there is none; `database-unavailable`.
    pub async fn get_tenant_by_id(&self, id: TenantId) -> Result<Tenant, Fault> {
        let row = self
            .one(&format!("{SELECT} where t.id = $1"), &[&id.number()])
            .await?;
        tenant_from(&row)
    }

    /// One page of live tenants, by number.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_tenants(&self, after: i64, limit: i64) -> Result<TenantPage, Fault> {
        let sql = format!(
            "{SELECT} where t.id > $1 and t.state <> 'deleted' order by t.id limit $2::bigint + 1"
        );
        let rows = self.rows(&sql, &[&after, &limit]).await?;
        let mut tenants: Vec<Tenant> = rows.iter().map(tenant_from).collect::<Result<_, _>>()?;
        let limit = usize::try_from(limit).map_err(internal)?;
        let more = tenants.len() > limit;
        tenants.truncate(limit);
        let next = if more {
            tenants.last().map(|tenant| tenant.id.number())
        } else {
            None
        };
        Ok(TenantPage { tenants, next })
    }

    /// Changes name and parent; returns the new generation. With a parent, everybody below gets new
    /// ancestors, which the cells must follow too; so their generations grow as well.
    ///
    /// # Errors
    /// `parent-cycle`; `database-unavailable`.
    pub async fn patch_tenant(&self, id: TenantId, patch: &TenantPatch) -> Result<i64, Fault> {
        let sql = "update registry.tenant
                      set name = coalesce($2, name)
                        , parent_id = case when $3 then $4 else parent_id end
                        , generation = generation + 1
                        , retry_at = now()
                        , attempts = 0
                    where id = $1
                   returning generation";
        let parent = patch.parent.flatten().map(TenantId::number);
        let row = self
            .one(
                sql,
                &[&id.number(), &patch.name, &patch.parent.is_some(), &parent],
            )
            .await?;
        if patch.parent.is_some() {
            self.touch_below(id).await?;
        }
        column(&row, "generation")
    }

    /// Sets what the tenant shall be; returns the new generation.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn want_tenant(&self, id: TenantId, desired: Desired) -> Result<i64, Fault> {
        let sql = "update registry.tenant
                      set desired = $2
                        , generation = generation + 1
                        , retry_at = now()
                        , attempts = 0
                    where id = $1
                   returning generation";
        column(
            &self.one(sql, &[&id.number(), &desired.as_str()]).await?,
            "generation",
        )
    }

    /// Raises the generation because something beside the row has changed.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn touch_tenant(&self, id: TenantId) -> Result<i64, Fault> {
        let unchanged = TenantPatch::default();
        self.patch_tenant(id, &unchanged).await
    }
}

fn not_found(slug: &Slug) -> Fault {
    fault::TENANT_NOT_FOUND.fault(format!("there is no tenant `{slug}`"))
}

pub(crate) fn tenant_from(row: &Row) -> Result<Tenant, Fault> {
    let parent_id: Option<i64> = column(row, "parent_id")?;
    let parent = match parent_id {
        Some(number) => Some((TenantId::new(number)?, parsed(row, "parent_slug")?)),
        None => None,
    };
    let profile: Option<&str> = column(row, "profile")?;
    let plan: Option<&str> = column(row, "plan")?;
    Ok(Tenant {
        id: TenantId::new(column(row, "id")?)?,
        slug: parsed(row, "slug")?,
        name: column(row, "name")?,
        country: parsed(row, "country")?,
        parent,
        profile: profile.map(str::parse).transpose()?,
        plan: plan.map(str::parse).transpose()?,
        placement: placement_from(row)?,
        reasons: column(row, "reasons")?,
        desired: parsed(row, "desired")?,
        state: parsed(row, "state")?,
        generation: column(row, "generation")?,
        revision: column(row, "revision")?,
        observed_generation: column(row, "observed_generation")?,
        attempts: column(row, "attempts")?,
        last_error: column(row, "last_error")?,
        created_at: column(row, "created_at")?,
    })
}

pub(crate) fn placement_from(row: &Row) -> Result<Placement, Fault> {
    Ok(Placement {
        cell: parsed(row, "cell")?,
        tier: parsed(row, "tier")?,
        bucket: column(row, "bucket")?,
        epoch: column(row, "epoch")?,
    })
}
