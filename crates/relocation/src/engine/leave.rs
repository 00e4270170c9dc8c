//! After a move: the old place is emptied, a batch at a time. Its home row stays, closed, so that no
//! late worker can open it again.

use std::time::Duration;

use tokio_postgres::Client;
use waangu_kernel::placement::Tier;
use waangu_tenancy::CellAdmin;

use super::{Relocation, home};
use crate::Error;
use crate::place::quoted;
use crate::state::Home;

impl Relocation {
    /// Removes what the tenant left behind. To be called after a grace time.
    ///
    /// # Errors
    /// `Refused` unless the tenant is open at its new place; `Database`, `Cell`.
    pub async fn empty_source(self, batch: i64, rest: Duration) -> Result<(), Error> {
        let (tenant, after) = (self.request.tenant, self.request.target.placement.epoch);
        let left = home(&self.reader, tenant).await? == Some((Home::Moved, after));
        if !left || home(&self.writer, tenant).await? != Some((Home::Active, after)) {
            return Err(Error::Refused(
                "it has not arrived at its new place".to_owned(),
            ));
        }
        let sql = "delete from waangu_relocation.kept where tenant_id = $1";
        self.reader.execute(sql, &[&tenant.number()]).await?;
        let source = &self.request.source;
        match source.placement.tier {
            Tier::Dedicated => {
                let admin = CellAdmin::new(source.cell.clone());
                Ok(admin
                    .drop_database(&source.placement.database(tenant))
                    .await?)
            }
            Tier::Schema => drop_schemas(&self.reader, tenant.number()).await,
            Tier::Shared => self.delete_rows(batch, rest).await,
        }
    }

    async fn delete_rows(&self, batch: i64, rest: Duration) -> Result<(), Error> {
        let number = self.request.tenant.number();
        self.reader
            .batch_execute("set session_replication_role = replica")
            .await?;
        for table in self.tables.iter() {
            let sql = format!(
                "delete from {0} where ctid = any (array(
                     select ctid from {0} where tenant_id = $1 limit $2))",
                table.source
            );
            while self.reader.execute(&sql, &[&number, &batch]).await? > 0 {
                tokio::time::sleep(rest).await;
            }
        }
        let sql = "delete from waangu.closure where descendant = $1";
        self.reader.execute(sql, &[&number]).await?;
        Ok(())
    }
}

async fn drop_schemas(client: &Client, number: i64) -> Result<(), Error> {
    let sql = "select nspname::text from pg_namespace where starts_with(nspname, $1)";
    let mut script = format!("begin; delete from waangu.closure where descendant = {number};");
    for row in client.query(sql, &[&format!("t_{number}_")]).await? {
        let schema: &str = row.try_get(0)?;
        let drop = format!(
            "drop schema {} cascade;
             delete from waangu.migration where schema_name = '{schema}';",
            quoted(schema)
        );
        script.push_str(&drop);
    }
    Ok(client.batch_execute(&(script + "commit")).await?)
}
