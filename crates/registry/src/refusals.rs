//! Packages that a control process brings along and can't install.
//!
//! Invariant: whoever brings one says so again and again; what nobody has brought for a while is no
//! refusal any more. So an operator who takes a release back has nothing to clear away.

use time::OffsetDateTime;
use waangu_kernel::{Fault, ModuleId};

use crate::StoredPackage;
use crate::db::{Tx, column, parsed};

/// How long a refusal is shown after somebody has brought the package, in seconds.
const SHOWN_SECONDS: i32 = 180;

/// A package that could not be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRefusal {
    /// The module, which keeps the version that it has.
    pub module: ModuleId,
    /// The version that was refused.
    pub version: String,
    /// The fault's code.
    pub code: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: OffsetDateTime,
}

impl Tx<'_> {
    /// Says that a package was brought along and refused; returns whether that is news.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_refusal(&self, package: &StoredPackage, why: &Fault) -> Result<bool, Fault> {
        let sql = "delete from registry.package_refusal
                    where seen_at < now() - make_interval(secs => $1::integer)";
        self.execute(sql, &[&SHOWN_SECONDS]).await?;
        let sql = "with before as (
                       select reason from registry.package_refusal where module = $1 and hash = $2
                   )
                   insert into registry.package_refusal (module, hash, version, code, reason)
                   values ($1, $2, $3, $4, $5)
                   on conflict (module, hash) do update
                   set version = excluded.version
                     , code = excluded.code
                     , reason = excluded.reason
                     , seen_at = now()
                   returning reason is distinct from (select reason from before) as news";
        let row = self
            .one(
                sql,
                &[
                    &package.module.as_str(),
                    &package.hash,
                    &package.version,
                    &why.code(),
                    &why.detail(),
                ],
            )
            .await?;
        column(&row, "news")
    }

    /// Forgets a refusal: the package has been installed.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn delete_refusal(&self, package: &StoredPackage) -> Result<(), Fault> {
        let sql = "delete from registry.package_refusal where module = $1 and hash = $2";
        self.execute(sql, &[&package.module.as_str(), &package.hash])
            .await
            .map(drop)
    }

    /// The packages that somebody brings along and can't install.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_refusals(&self) -> Result<Vec<PackageRefusal>, Fault> {
        let sql = "select * from registry.package_refusal
                    where seen_at >= now() - make_interval(secs => $1::integer)
                    order by module, version";
        let rows = self.rows(sql, &[&SHOWN_SECONDS]).await?;
        rows.iter()
            .map(|row| {
                Ok(PackageRefusal {
                    module: parsed(row, "module")?,
                    version: column(row, "version")?,
                    code: column(row, "code")?,
                    reason: column(row, "reason")?,
                    since: column(row, "since")?,
                })
            })
            .collect()
    }
}
