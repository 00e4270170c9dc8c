//! The process: prepares cells and registry, then serves and reconciles until told to stop.

use std::collections::HashMap;
use std::future::IntoFuture as _;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, MutexGuard, Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waangu_identity::password::Hasher;
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Clock, Fault, fault};
use waangu_registry::{Registry, Tx};
use waangu_tenancy::CellAdmin;

use crate::advisor::Advisor;
use crate::advisor::act::doer;
use crate::circuits::Circuits;
use crate::config::{CellSecrets, Config, MoveLimits};
use crate::fleet;
use crate::keys::{Keeper, unusable};
use crate::packages::{self, Packages};
use crate::reconcile::Reconciler;
use crate::relocation::Movers;
use crate::repair;
use crate::reply::Refusal;
use crate::steps::Steps;
use crate::world::{self, Here};
use crate::{admin, housekeeping, login, stock};

/// Connections to the control database; each worker and each request in hand takes one.
const CONNECTIONS: usize = 32;

/// Reconcilers in this process.
const WORKERS: usize = 4;

/// Argon2id is made to be expensive: so many at a time, the rest wait their turn.
const HASHES: usize = 2;

/// Sign-ins and new users that may wait for their turn before others are told to come later.
const HASH_QUEUE: usize = 64;

/// Sign-ins of one subject go one by one; so many subjects go side by side.
const SIGN_IN_LANES: usize = 64;

/// Longest wait for the sign-ins of the same subject that came before.
const SIGN_IN_WAIT: Duration = Duration::from_secs(10);

/// How often what has served its time is forgotten.
const SWEEP: Duration = Duration::from_hours(1);

/// Longest wait for requests in hand at shutdown.
const DRAIN: Duration = Duration::from_secs(8);

/// What handlers share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) advisor: Arc<Advisor>,
    pub(crate) clock: Arc<dyn Clock>,
    hashes: Semaphore,
    /// Their memory is kept: no more of them than places in `hashes`.
    hashers: std::sync::Mutex<Vec<Hasher>>,
    hash_queue: Semaphore,
    sign_ins: Vec<Mutex<()>>,
}

impl App {
    /// The turn of a subject's sign-in, by the hash (hex) that stands for the subject.
    pub(crate) async fn sign_in_turn(&self, subject: &str) -> Result<MutexGuard<'_, ()>, Fault> {
        let busy = || fault::OVERLOADED.fault("too many sign-ins at once");
        let number = subject.get(..2).map(|hex| usize::from_str_radix(hex, 16));
        let number = number.and_then(Result::ok).unwrap_or(0) % SIGN_IN_LANES;
        let lane = self.sign_ins.get(number).ok_or_else(busy)?;
        tokio::time::timeout(SIGN_IN_WAIT, lane.lock())
            .await
            .map_err(|_elapsed| busy())
    }

    /// Runs a hash off the event loop, a few at a time, behind a bounded queue.
    pub(crate) async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Hasher) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let busy = || fault::OVERLOADED.fault("too many sign-ins at once");
        let _place = self.hash_queue.try_acquire().map_err(|_full| busy())?;
        let _turn = self.hashes.acquire().await.map_err(|_closed| busy())?;
        let hasher = self
            .hashers
            .lock()
            .ok()
            .and_then(|mut hashers| hashers.pop());
        let mut hasher = hasher.unwrap_or_default();
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&mut hasher);
            (done, hasher)
        });
        let (done, hasher) = worked.await.map_err(|error| {
            fault::INTERNAL
                .fault("a hash was not finished")
                .cause(error)
        })?;
        if let Ok(mut hashers) = self.hashers.lock() {
            hashers.push(hasher);
        }
        Ok(done)
    }
}

/// Brings the control database and all cells to what this program needs. Idempotent. Packages that
/// this environment may not receive yet are left out of `config`.
///
/// # Errors
/// `database-unavailable`; `internal` when a server is too old or a database too new.
pub async fn prepare(config: &mut Config) -> Result<(), Fault> {
    let registry = Registry::new(&config.registry_dsn, CONNECTIONS)?;
    let mut session = registry.session().await?;
    session.migrate().await?;
    let tx = session.begin().await?;
    let own: Vec<_> = config.cells.iter().map(|cell| &cell.admin).collect();
    let here = Here {
        environment: &config.environment,
    };
    world::bootstrap(&tx, here, &config.world, &own).await?;
    admit_packages(&tx, config).await?;
    let (token, name) = &config.operator;
    tx.put_operator_token(token, name).await?;
    tx.commit().await?;
    let ring = config.keys.read()?;
    config
        .keys
        .publish(&ring.public().map_err(|error| unusable(&error))?)?;
    let proofs = ring.proofs().map_err(|error| unusable(&error))?;
    let cells = config
        .cells
        .iter()
        .map(async |CellSecrets { admin, logins }| {
            CellAdmin::new(admin.clone()).prepare(logins, &proofs).await
        });
    futures_util::future::try_join_all(cells).await.map(drop)
}

/// Installs the modules whose version may run in this environment, and puts the others aside: their
/// tenants keep the version they have.
async fn admit_packages(tx: &Tx<'_>, config: &mut Config) -> Result<(), Fault> {
    let facts = admin::Facts::read(tx).await?;
    let known = facts.known();
    let (admitted, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut config.packages)
        .into_iter()
        .partition(|package| {
            let Manifest { id, version, .. } = &package.manifest;
            known.admits(id, version, &config.environment)
        });
    let cells = config.cells.iter();
    let cells: Vec<_> = cells
        .map(|secrets| Arc::new(CellAdmin::new(secrets.admin.clone())))
        .collect();
    config.refused = packages::install(tx, admitted.clone(), &cells, &config.environment).await?;
    config.packages = admitted;
    config.packages.retain(|package| {
        let mut refused = config.refused.iter();
        !refused.any(|refused| refused.package().id() == package.id())
    });
    for package in waiting {
        let Manifest { id, version, .. } = package.manifest;
        let environment = &config.environment;
        tracing::warn!(%id, version, environment, "module waits for its promotion and is left out");
        config.waiting.push((id, version));
    }
    Ok(())
}

/// Serves until `stop`, then drains.
///
/// # Errors
/// When the control database can't be configured or the socket fails.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<(), Fault> {
    let registry = Registry::new(&config.registry_dsn, CONNECTIONS)?;
    let cells = cells(&config);
    let keeper = Arc::new(Keeper::new(
        config.keys.clone(),
        registry.clone(),
        cells.clone(),
        Arc::clone(&clock),
    )?);
    let reconciler = Arc::new(Reconciler {
        registry: registry.clone(),
        cells,
        packages: Packages::default(),
        circuits: Circuits::new(Arc::clone(&clock)),
        work: Notify::new(),
        fleet: Notify::new(),
        repair: Notify::new(),
        stock: Notify::new(),
        moves: Notify::new(),
        progress: Steps::new(),
    });
    let conductor = fleet::Conductor::new(Arc::clone(&reconciler), &config);
    let advisor = Arc::new(advisor(&config, &reconciler, &clock));
    let app = Arc::new(App {
        config,
        registry,
        reconciler: Arc::clone(&reconciler),
        keeper: Arc::clone(&keeper),
        advisor: Arc::clone(&advisor),
        clock,
        hashes: Semaphore::new(HASHES),
        hashers: std::sync::Mutex::default(),
        hash_queue: Semaphore::new(HASH_QUEUE),
        sign_ins: (0..SIGN_IN_LANES).map(|_| Mutex::default()).collect(),
    });
    let tasks = TaskTracker::new();
    for _worker in 0..WORKERS {
        tasks.spawn(Arc::clone(&reconciler).run(stop.clone()));
    }
    tasks.spawn(keeper.run(stop.clone()));
    tasks.spawn(conductor.run(stop.clone()));
    tasks.spawn(advisor.run(stop.clone()));
    tasks.spawn(doer::run(Arc::clone(&app), stop.clone()));
    let (grace, limits) = (app.config.move_grace_seconds, app.config.moves);
    let movers = Movers::new(Arc::clone(&reconciler), grace, limits);
    tasks.spawn(movers.run(stop.clone()));
    keep_up(&tasks, &app, &stop);
    look_after(&tasks, &reconciler, limits, &stop);
    tasks.close();

    let router = admin::router(Arc::clone(&app))
        .merge(login::router(app))
        .route("/healthz", get(|| async { "ok" }))
        .fallback(|| async { Refusal(fault::ROUTE_NOT_FOUND.fault("there is nothing here")) });
    let drained = stop.clone();
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { drained.cancelled().await })
        .into_future();
    let bounded = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serving => served.map_err(|error| {
            fault::INTERNAL.fault("the control plane's socket failed").cause(error)
        })?,
        () = bounded => tracing::warn!("requests still in hand were cut off"),
    }
    drop(tokio::time::timeout(DRAIN, tasks.wait()).await);
    Ok(())
}

fn advisor(config: &Config, reconciler: &Reconciler, clock: &Arc<dyn Clock>) -> Advisor {
    Advisor::new(
        reconciler.registry.clone(),
        reconciler.cells.values().map(Arc::clone).collect(),
        config.environment.clone(),
        Arc::clone(clock),
    )
}

/// Lets drift be looked for, databases be kept ready, and refused packages be tried again.
fn keep_up(tasks: &TaskTracker, app: &App, stop: &CancellationToken) {
    let (config, reconciler) = (&app.config, &app.reconciler);
    tasks.spawn(repair::watch(
        Arc::clone(reconciler),
        config.repair_seconds,
        stop.clone(),
    ));
    let most = stock::Most {
        databases: config.stock_databases,
        schemas: config.stock_schemas,
    };
    tasks.spawn(stock::keep(Arc::clone(reconciler), most, stop.clone()));
    tasks.spawn(packages::keep_trying(
        Arc::clone(reconciler),
        config.refused.clone(),
        (config.environment.clone(), config.auto_rollout),
        stop.clone(),
    ));
}

/// Lets each cell's circuit be watched, and done what is done from time to time.
fn look_after(
    tasks: &TaskTracker,
    reconciler: &Arc<Reconciler>,
    limits: MoveLimits,
    stop: &CancellationToken,
) {
    let (registry, own) = (&reconciler.registry, reconciler.cells.values());
    tasks.spawn(sweep(registry.clone(), stop.clone()));
    let own = own.map(Arc::clone).collect();
    let keeping = housekeeping::run(registry.clone(), own, limits.max_held(), stop.clone());
    tasks.spawn(keeping);
    for cell in reconciler.cells.values() {
        let (reconciler, cell, stop) = (Arc::clone(reconciler), Arc::clone(cell), stop.clone());
        tasks.spawn(async move {
            let Reconciler {
                circuits,
                registry,
                work,
                ..
            } = &*reconciler;
            tokio::select! {
                () = stop.cancelled() => {}
                () = circuits.watch(&cell, registry, work) => {}
            }
        });
    }
}

fn cells(config: &Config) -> HashMap<waangu_kernel::CellId, Arc<CellAdmin>> {
    config
        .cells
        .iter()
        .map(|secrets| {
            (
                secrets.admin.id.clone(),
                Arc::new(CellAdmin::new(secrets.admin.clone())),
            )
        })
        .collect()
}

async fn sweep(registry: Registry, stop: CancellationToken) {
    loop {
        if let Err(fault) = sweep_once(&registry).await {
            tracing::warn!(cause = fault.operator_cause(), "sweep: {fault}");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}

async fn sweep_once(registry: &Registry) -> Result<(), Fault> {
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    tx.sweep().await?;
    tx.commit().await
}
