//! The audit log: who changed what. It only grows (triggers refuse anything else) and outlives the
//! tenants it tells about.

use time::OffsetDateTime;
use waangu_kernel::{Fault, Slug, TenantId};

use crate::db::{Tx, column};

/// One recorded act.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: String,
    /// What, `noun.verb`.
    pub action: String,
    /// The tenant's slug at that time.
    pub slug: Option<String>,
    /// More.
    pub detail: serde_json::Value,
}

impl Tx<'_> {
    /// Records an act, in the transaction of the act itself.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_audit(
        &self,
        actor: &str,
        action: &str,
        tenant: Option<(TenantId, &Slug)>,
        detail: &serde_json::Value,
    ) -> Result<(), Fault> {
        let sql = "insert into registry.audit_event (actor, action, tenant_id, slug, detail)
                   values ($1, $2, $3, $4, $5)";
        let id = tenant.map(|(id, _)| id.number());
        let slug = tenant.map(|(_, slug)| slug.as_str());
        self.execute(sql, &[&actor, &action, &id, &slug, detail])
            .await
            .map(drop)
    }

    /// The newest acts, newest first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_audit(
        &self,
        slug: Option<&Slug>,
        before: i64,
        limit: i64,
    ) -> Result<Vec<AuditEvent>, Fault> {
        let sql = "select * from registry.audit_event
                    where id < $1 and ($2::text is null or slug = $2)
                    order by id desc
                    limit $3";
        let rows = self
            .rows(sql, &[&before, &slug.map(Slug::as_str), &limit])
            .await?;
        rows.iter()
            .map(|row| {
                Ok(AuditEvent {
                    id: column(row, "id")?,
                    at: column(row, "at")?,
                    actor: column(row, "actor")?,
                    action: column(row, "action")?,
                    slug: column(row, "slug")?,
                    detail: column(row, "detail")?,
                })
            })
            .collect()
    }
}
