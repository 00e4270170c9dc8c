//! Module packages: which one new namespaces get, and the older ones that others stand on.
//!
//! Invariant: a module's current package continues every package that was current before, so what
//! stands in any namespace is the beginning of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use waangu_kernel::{Fault, ModuleId, fault};
use waangu_registry::{StoredPackage, Tx};
use waangu_tenancy::{CellAdmin, ModulePackage};

/// Longest trial of a package. The registry's transaction waits meanwhile.
const TRIAL: Duration = Duration::from_secs(40);

/// How much of what stands in a package's way is told.
const SHOWN: usize = 10;

/// Packages that have been read; one never changes under its hash, apart from what says nothing about
/// tables.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    known: Mutex<HashMap<(ModuleId, String), Arc<ModulePackage>>>,
}

impl Packages {
    /// A package.
    pub(crate) async fn get(
        &self,
        tx: &Tx<'_>,
        module: &ModuleId,
        hash: &str,
    ) -> Result<Arc<ModulePackage>, Fault> {
        let key = (module.clone(), hash.to_owned());
        if let Some(found) = self.lock().get(&key) {
            return Ok(Arc::clone(found));
        }
        let package = Arc::new(read(&tx.get_package(module, hash).await?)?);
        self.lock().insert(key, Arc::clone(&package));
        Ok(package)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(ModuleId, String), Arc<ModulePackage>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Installs the packages that this program was started with. One that is the beginning of what is
/// installed comes from an older program, which is just being replaced: it changes nothing. One with new
/// migrations is tried on one of the cells first.
///
/// # Errors
/// `package-rewritten` when one contradicts what is installed; `package-incompatible` and
/// `package-early` when programs of the installed version could not go on beside it;
/// `database-unavailable`.
pub(crate) async fn install(
    tx: &Tx<'_>,
    packages: &[ModulePackage],
    cells: &[CellAdmin],
) -> Result<(), Fault> {
    let installed: HashMap<ModuleId, StoredPackage> = tx
        .lock_packages()
        .await?
        .into_iter()
        .map(|stored| (stored.module.clone(), stored))
        .collect();
    for package in packages {
        let module = package.id();
        let before = installed.get(module).map(read).transpose()?;
        let newer = match &before {
            None => true,
            Some(before) => check(package, before)?,
        };
        if let Some(before) = before.filter(|_| newer) {
            check_together(tx, &before, package, cells).await?;
        }
        if newer {
            tx.put_module(&package.manifest).await?;
            tx.put_package(&write(package)?).await?;
        } else {
            tracing::warn!(%module, "an older package than the installed one was brought along");
        }
    }
    Ok(())
}

/// Whether the package takes the place of the one before.
fn check(package: &ModulePackage, before: &ModulePackage) -> Result<bool, Fault> {
    if package.continues(before) {
        return Ok(true);
    }
    if before.continues(package) {
        return Ok(false);
    }
    let same = package
        .migrations
        .iter()
        .zip(&before.migrations)
        .take_while(|(new, old)| new == old)
        .count();
    let changed = before.migrations.get(same).map(|old| old.name.as_str());
    Err(fault::PACKAGE_REWRITTEN.fault(format!(
        "module {}: migration {} (`{}`) is not the one that was installed",
        package.id(),
        same + 1,
        changed.unwrap_or_default()
    )))
}

/// Whether programs of the installed version can work on the new one's tables while it is brought to all
/// tenants. A release that only removes what they don't use any more says so, and waits until they have
/// all of what came before it; that it is so, is its author's word and test.
async fn check_together(
    tx: &Tx<'_>,
    before: &ModulePackage,
    package: &ModulePackage,
    cells: &[CellAdmin],
) -> Result<(), Fault> {
    if package.fingerprint() == before.fingerprint() {
        return Ok(());
    }
    let module = package.id();
    if package.manifest.contract {
        let behind = tx.list_behind(module, &before.fingerprint()).await?.len();
        let open = tx.lock_open_rollout(module).await?.is_some();
        if behind > 0 || open {
            return Err(fault::PACKAGE_EARLY.fault(format!(
                "module {module}: version {} removes what is old, and {behind} namespaces don't have \
                 version {} yet, or an upgrade to it is under way",
                package.manifest.version, before.manifest.version
            )));
        }
        return Ok(());
    }
    let trial = tokio::time::timeout(TRIAL, try_on_a_cell(before, package, cells)).await;
    let found = trial.unwrap_or_else(|_late| {
        Err(fault::DATABASE_UNAVAILABLE.fault("a package could not be tried in time"))
    })?;
    if found.is_empty() {
        return Ok(());
    }
    let more = found.len().saturating_sub(SHOWN);
    let mut told: Vec<String> = found.into_iter().take(SHOWN).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    let text = told.join("; ");
    Err(fault::PACKAGE_INCOMPATIBLE.fault(format!(
        "module {module}: version {} would break programs of version {}: {text}",
        package.manifest.version, before.manifest.version
    )))
}

/// Any cell will do: migrations make the same tables everywhere. One that is down is passed over.
async fn try_on_a_cell(
    before: &ModulePackage,
    package: &ModulePackage,
    cells: &[CellAdmin],
) -> Result<Vec<String>, Fault> {
    let mut last = Ok(Vec::new());
    for cell in cells {
        last = cell.incompatibilities(before, package).await;
        match &last {
            Err(fault) if fault.code() == fault::DATABASE_UNAVAILABLE.code => {}
            _ => return last,
        }
    }
    last
}

fn read(stored: &StoredPackage) -> Result<ModulePackage, Fault> {
    serde_json::from_value(stored.content.clone()).map_err(unreadable)
}

fn write(package: &ModulePackage) -> Result<StoredPackage, Fault> {
    Ok(StoredPackage {
        module: package.id().clone(),
        hash: package.fingerprint(),
        version: package.manifest.version.clone(),
        steps: i32::try_from(package.migrations.len()).map_err(unreadable)?,
        content: serde_json::to_value(package).map_err(unreadable)?,
    })
}

fn unreadable(cause: impl std::fmt::Display) -> Fault {
    fault::INTERNAL
        .fault("a stored package can't be read")
        .cause(cause)
}
