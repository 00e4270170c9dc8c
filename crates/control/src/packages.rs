//! Module packages: which one new namespaces get, and the older ones that others stand on.
//!
//! Invariant: a module's current package continues every package that was current before, so what
//! stands in any namespace is the beginning of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use waangu_kernel::{Fault, ModuleId, fault};
use waangu_registry::{StoredPackage, Tx};
use waangu_tenancy::ModulePackage;

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
/// installed comes from an older program, which is just being replaced: it changes nothing.
///
/// # Errors
/// `package-rewritten` when one contradicts what is installed; `database-unavailable`.
pub(crate) async fn install(tx: &Tx<'_>, packages: &[ModulePackage]) -> Result<(), Fault> {
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
