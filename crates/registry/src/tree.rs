//! The tree of tenants: who stands above and below whom.
//!
//! Invariant: whoever changes it holds [`Tx::lock_tree`] until its transaction ends.

use waangu_kernel::{CountryCode, Fault, TenantId};

use crate::db::{Tx, column, parsed};

/// Raises the generation of all live tenants below one. `cycle` stops even if a cycle were stored by
/// hand.
const TOUCH_BELOW: &str = "
with recursive down as (
    select id from registry.tenant where parent_id = $1
    union all
    select t.id from registry.tenant t join down on t.parent_id = down.id
) cycle id set looped using path
update registry.tenant
   set generation = generation + 1
     , retry_at = now()
     , attempts = 0
 where id in (select id from down where not looped)
   and id <> $1
   and state <> 'deleted'";

impl Tx<'_> {
    /// Whether live tenants have this one as their parent.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn has_children(&self, id: TenantId) -> Result<bool, Fault> {
        let sql = "select exists (select from registry.tenant
                                   where parent_id = $1 and desired <> 'deleted') as found";
        column(&self.one(sql, &[&id.number()]).await?, "found")
    }

    /// The numbers of the ancestors of `id`, itself included, nearest first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_ancestors(&self, id: TenantId) -> Result<Vec<i64>, Fault> {
        // `cycle` stops even if a cycle were stored by hand.
        let sql = "with recursive up as (
                       select id, parent_id, 0 as depth from registry.tenant where id = $1
                       union all
                       select t.id, t.parent_id, up.depth + 1
                         from registry.tenant t join up on t.id = up.parent_id
                   ) cycle id set looped using path
                   select id from up where not looped order by depth";
        self.rows(sql, &[&id.number()])
            .await?
            .iter()
            .map(|row| column(row, "id"))
            .collect()
    }

    /// The countries of the live children of `id`.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_child_countries(&self, id: TenantId) -> Result<Vec<CountryCode>, Fault> {
        let sql = "select distinct country from registry.tenant
                    where parent_id = $1 and desired <> 'deleted'";
        self.rows(sql, &[&id.number()])
            .await?
            .iter()
            .map(|row| parsed(row, "country"))
            .collect()
    }

    /// Takes the lock under which the tree of tenants may change, so that two moves that are fine
    /// each by itself can't make a cycle together.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn lock_tree(&self) -> Result<(), Fault> {
        self.execute("select pg_advisory_xact_lock(-2)", &[])
            .await
            .map(drop)
    }

    /// Raises the generation of everybody below: their ancestors have changed.
    pub(crate) async fn touch_below(&self, id: TenantId) -> Result<(), Fault> {
        self.execute(TOUCH_BELOW, &[&id.number()]).await.map(drop)
    }
}
