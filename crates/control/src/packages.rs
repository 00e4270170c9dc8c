//! Module packages: which one new namespaces get, and the older ones that others stand on.
//!
//! Invariant: a module's current package continues every package that was current before, so what
//! stands in any namespace is the beginning of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Fault, ModuleId, fault};
use waangu_registry::{Session, StoredPackage, Tx};
use waangu_tenancy::{CellAdmin, ModulePackage};

use crate::fleet;
use crate::reconcile::Reconciler;

/// Longest trial of a package. The registry's transaction waits meanwhile.
const TRIAL: Duration = Duration::from_secs(40);

/// How much of what stands in a package's way is told.
const SHOWN: usize = 10;

/// From one attempt at what was refused to the next.
const AGAIN: Duration = Duration::from_secs(15);

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

/// A package that can't be installed.
#[derive(Debug, Clone)]
pub struct Refused {
    package: ModulePackage,
    why: Arc<Fault>,
    /// The hash of the package that it was tried beside.
    installed: Option<String>,
}

impl Refused {
    /// The package.
    pub fn package(&self) -> &ModulePackage {
        &self.package
    }

    /// Why it is refused.
    pub fn why(&self) -> &Fault {
        &self.why
    }

    /// Whether a later release has brought these tables since, or more: its manifest stays.
    fn is_overtaken(&self, installed: &[StoredPackage]) -> Result<bool, Fault> {
        let of = |stored: &&StoredPackage| stored.module == *self.package.id();
        let Some(now) = installed.iter().find(of) else {
            return Ok(false);
        };
        Ok(self.installed.as_ref() != Some(&now.hash) && read(now)?.continues(&self.package))
    }

    /// Whether another attempt would end as the last one did.
    fn stands(&self, installed: &[StoredPackage]) -> bool {
        let of = |stored: &&StoredPackage| stored.module == *self.package.id();
        let now = installed.iter().find(of).map(|stored| &stored.hash);
        now == self.installed.as_ref() && self.why.code() != fault::PACKAGE_EARLY.code
    }
}

/// Installs packages that this program was started with; returns those that are refused, whose modules
/// keep the version that they have. One that is the beginning of what is installed comes from an older
/// program, which is just being replaced: it changes nothing. One with new migrations is tried on one of
/// the cells first.
///
/// # Errors
/// `database-unavailable`.
pub(crate) async fn install(
    tx: &Tx<'_>,
    packages: Vec<ModulePackage>,
    cells: &[Arc<CellAdmin>],
    environment: &str,
) -> Result<Vec<Refused>, Fault> {
    let installed: HashMap<ModuleId, StoredPackage> = tx
        .lock_packages()
        .await?
        .into_iter()
        .map(|stored| (stored.module.clone(), stored))
        .collect();
    let mut refused = Vec::new();
    for package in packages {
        let before = installed.get(package.id()).map(read).transpose()?;
        match install_one(tx, before.as_ref(), &package, cells).await {
            Ok(()) => {
                let Manifest { id, version, .. } = &package.manifest;
                tx.record_module_run(environment, id, version, None).await?;
                tx.delete_refusal(&write(&package)?).await?;
            }
            Err(why) if is_refusal(&why) => {
                let installed = installed.get(package.id());
                let installed = installed.map(|stored| stored.hash.clone());
                tell(tx, &package, &why).await?;
                refused.push(Refused {
                    package,
                    why: Arc::new(why),
                    installed,
                });
            }
            Err(other) => return Err(other),
        }
    }
    Ok(refused)
}

async fn install_one(
    tx: &Tx<'_>,
    before: Option<&ModulePackage>,
    package: &ModulePackage,
    cells: &[Arc<CellAdmin>],
) -> Result<(), Fault> {
    if let Some(before) = before {
        if !check(package, before)? {
            let module = package.id();
            tracing::warn!(%module, "an older package than the installed one was brought along");
            return Ok(());
        }
        check_together(tx, before, package, cells).await?;
    }
    tx.put_module(&package.manifest).await?;
    tx.put_package(&write(package)?).await
}

/// Whether the package is at fault, not the platform.
fn is_refusal(why: &Fault) -> bool {
    let codes = [
        fault::PACKAGE_REWRITTEN.code,
        fault::PACKAGE_INCOMPATIBLE.code,
        fault::PACKAGE_EARLY.code,
        fault::MODULE_MANIFEST_INVALID.code,
    ];
    codes.contains(&why.code())
}

/// Says that a package is refused: to `fleet status` always, to log and audit if it is news.
async fn tell(tx: &Tx<'_>, package: &ModulePackage, why: &Fault) -> Result<(), Fault> {
    if !tx.put_refusal(&write(package)?, why).await? {
        return Ok(());
    }
    let Manifest { id, version, .. } = &package.manifest;
    let (code, reason) = (why.code(), why.detail());
    tracing::error!(module = %id, version, code, "module {id} keeps its version: {reason}");
    let detail = json!({ "module": id, "version": version, "code": code, "reason": reason });
    tx.record_audit("control", "package.refuse", None, &detail)
        .await
}

/// Tries refused packages again, until all are installed or `stop`: what stood in the way of one may be
/// gone. With `auto`, what could be installed goes to all namespaces at once.
pub(crate) async fn keep_trying(
    reconciler: Arc<Reconciler>,
    mut refused: Vec<Refused>,
    (environment, auto): (String, bool),
    stop: CancellationToken,
) {
    let cells: Vec<Arc<CellAdmin>> = reconciler.cells.values().map(Arc::clone).collect();
    while !refused.is_empty() {
        let slept = stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
        if slept.is_none() {
            return;
        }
        let tried = async {
            let mut session = reconciler.registry.session().await?;
            let left = try_again(&mut session, &refused, &cells, &environment).await?;
            let fewer = left.len() < refused.len();
            refused = left;
            if auto && fewer {
                fleet::begin_all(&mut session).await?;
            }
            Ok::<_, Fault>(())
        };
        if let Err(fault) = tried.await {
            tracing::warn!(cause = fault.operator_cause(), "packages: {fault}");
        }
        reconciler.fleet.notify_one();
    }
}

async fn try_again(
    session: &mut Session,
    refused: &[Refused],
    cells: &[Arc<CellAdmin>],
    environment: &str,
) -> Result<Vec<Refused>, Fault> {
    let tx = session.begin().await?;
    let installed = tx.lock_packages().await?;
    let mut open = Vec::new();
    for refused in refused {
        if refused.is_overtaken(&installed)? {
            tx.delete_refusal(&write(&refused.package)?).await?;
        } else {
            open.push(refused.clone());
        }
    }
    let (mut left, due): (Vec<Refused>, Vec<Refused>) = open
        .into_iter()
        .partition(|refused| refused.stands(&installed));
    for refused in &left {
        tell(&tx, &refused.package, &refused.why).await?;
    }
    if !due.is_empty() {
        let due = due.into_iter().map(|refused| refused.package).collect();
        left.extend(install(&tx, due, cells, environment).await?);
    }
    tx.commit().await?;
    Ok(left)
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
    cells: &[Arc<CellAdmin>],
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
    cells: &[Arc<CellAdmin>],
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
