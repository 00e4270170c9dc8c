//! Wishes for new keys of the gateway. What the keys are, and how far each is, stands in the control
//! plane's own file.

use time::OffsetDateTime;
use uuid::Uuid;
use waangu_kernel::{Fault, KeyKind, RotationId};

use crate::db::{Tx, column, parsed};

/// A wish that has not come true yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Its id.
    pub id: RotationId,
    /// Which key shall be replaced.
    pub kind: KeyKind,
    /// Who wants it.
    pub wanted_by: String,
    /// Since when.
    pub wanted_at: OffsetDateTime,
}

impl Tx<'_> {
    /// Asks for a new key of this kind; says whether nobody had before.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn want_rotation(&self, kind: KeyKind, actor: &str) -> Result<bool, Fault> {
        let sql = "insert into registry.key_rotation (id, kind, wanted_by) values ($1, $2, $3)
                   on conflict (kind) where done_at is null do nothing";
        let id = RotationId::generate().uuid();
        let made = self.execute(sql, &[&id, &kind.as_str(), &actor]).await?;
        Ok(made > 0)
    }

    /// Wishes that have not come true, the oldest first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_rotations(&self) -> Result<Vec<Rotation>, Fault> {
        let sql = "select id
                        , kind
                        , wanted_by
                        , wanted_at
                     from registry.key_rotation
                    where done_at is null
                    order by id";
        let rows = self.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| {
                let id: Uuid = column(row, "id")?;
                Ok(Rotation {
                    id: RotationId::from_uuid(id),
                    kind: parsed(row, "kind")?,
                    wanted_by: column(row, "wanted_by")?,
                    wanted_at: column(row, "wanted_at")?,
                })
            })
            .collect()
    }

    /// Notes that a wish has come true; says whether that was new.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn finish_rotation(&self, rotation: RotationId) -> Result<bool, Fault> {
        let sql = "update registry.key_rotation
                      set done_at = now()
                    where id = $1 and done_at is null";
        Ok(self.execute(sql, &[&rotation.uuid()]).await? > 0)
    }
}
