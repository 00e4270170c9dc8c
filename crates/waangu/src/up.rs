//! `waangu up`: a whole platform on one machine, every part a process of its own.
//!
//! Reads top to bottom: state folder → secrets → TLS → PostgreSQL → control plane, modules, gateway →
//! demo fleet → ready file → wait → stop. What stops first is what needs the others: gateway, modules
//! and control plane together, then PostgreSQL.
//!
//! Invariant: whatever happens, a start on the same folder finds everything as it was.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waangu_api::world::World;
use waangu_api::{Client, Ready};
use waangu_kernel::{CellId, ModuleId, SystemClock};

use crate::cli::{Global, UpOptions};
use crate::failure::{Failure, Of as _};
use crate::output::talk;

mod children;
mod demo;
mod files;
mod keys;
mod packages;
mod postgres;
mod progress;
mod ready;
mod secrets;
mod state;
mod tls;

use children::{ChildSpec, bind_free};
use files::Layout;
use postgres::{OwnCell, Server};
use progress::Progress;
use secrets::Secrets;
use state::State;

/// The domain of a development platform (names below it reach loopback without DNS, RFC 6761 §6.3).
const DOMAIN: &str = "waangu.localhost";

/// The environment that `up` runs.
const ENVIRONMENT: &str = "dev";

/// The file that names the cell with the control database.
const CONTROL_CELL: &str = "control-cell";

/// Where the world files are in the state folder.
const FLEET: &str = "fleet";

/// The gateway's port unless told otherwise.
const PORT: u16 = 8443;

/// What runs.
struct Platform {
    /// Ends gateway, modules and control plane.
    stop: CancellationToken,
    /// Ends PostgreSQL.
    stop_databases: CancellationToken,
    services: TaskTracker,
    databases: TaskTracker,
}

/// Starts the platform, keeps it running, and stops it when told to.
pub(crate) async fn run(global: &Global, options: UpOptions) -> Result<(), Failure> {
    waangu_process::log("warn");
    let state = State::open(&global.state)?;
    let ready_path = global.ready_file.clone();
    forget_ready(&state, ready_path.as_deref())?;
    let platform = Platform {
        stop: CancellationToken::new(),
        stop_databases: CancellationToken::new(),
        services: TaskTracker::new(),
        databases: TaskTracker::new(),
    };
    let mut told = Told::new()?;
    let mut progress = Progress::begin();
    let started = tokio::select! {
        started = start(&state, &options, &platform, &mut progress) => started,
        () = told.wait() => Err(Failure::failed("stopped before everything ran")),
    };
    let outcome = match started {
        Ok(ready) => {
            let (took, phases) = progress.end();
            let published = ready::publish(&state, ready_path.as_deref(), &ready, took, &phases);
            if published.is_ok() {
                told.wait().await;
            }
            published
        }
        Err(failure) => Err(failure),
    };
    talk("stopping …");
    let forgotten = forget_ready(&state, ready_path.as_deref());
    platform.shut_down().await;
    talk("stopped");
    outcome.and(forgotten)
}

async fn start(
    state: &State,
    options: &UpOptions,
    platform: &Platform,
    progress: &mut Progress,
) -> Result<Ready, Failure> {
    progress.phase("prepare");
    let programs = packages::Programs::find()?;
    let modules = programs.export(state).await?;
    let (world, cells) = own_world(state)?;
    let ids: Vec<CellId> = cells.iter().map(|cell| cell.id.clone()).collect();
    let mut secrets = Secrets::load(state, &ids, &modules)?;
    let keys = keys::ensure(state, &mut secrets, options.key_grace)?;
    let gateway = bind_gateway(state, options.http_port)?;
    let port = gateway.local_addr().of("gateway socket")?.port();
    let tls = tls::ensure(state, DOMAIN, &SystemClock)?;

    progress.phase("start PostgreSQL");
    let servers = start_databases(state, options, &secrets, &cells, platform, progress).await?;
    let first = servers
        .first()
        .ok_or_else(|| Failure::failed("the world has no cell"))?;
    postgres::prepare_control(first, &secrets).await?;

    progress.phase("start control plane, modules and gateway");
    let layout = Layout {
        state,
        secrets: &secrets,
        keys: &keys,
        servers: &servers,
        world: &world,
        tls: &tls,
        domain: DOMAIN,
        port,
        name_grace_seconds: options.name_grace,
        move_grace_seconds: options.move_grace,
        auto_rollout: !options.hold_upgrades,
        stock: options.stock,
    };
    start_services(&layout, &programs, &modules, gateway, platform).await?;

    let mut ready = ready::describe(&layout)?;
    if options.demo {
        progress.phase("onboard the demo fleet");
        ready.demo = Some(demo::seed(&ready, &secrets.demo_password, progress).await?);
    }
    Ok(ready)
}

/// The world in the state folder's `fleet/`: at the first start the one that comes with this program.
/// Its cells of this environment are those that get a server here.
fn own_world(state: &State) -> Result<(World, Vec<OwnCell>), Failure> {
    if !state.path(FLEET).is_dir() {
        state.write_folder(FLEET, &crate::fleet::DEFAULT)?;
    }
    let world = crate::fleet::Files::read(&state.path(FLEET))?.world()?;
    let here =
        |environment: &Option<String>| environment.as_ref().is_none_or(|id| id == ENVIRONMENT);
    let cells = world.cells.iter().filter(|cell| here(&cell.environment));
    let own = cells.map(|cell| {
        Ok(OwnCell {
            id: cell.id.parse()?,
            region: cell.region.parse()?,
        })
    });
    let mut own = own.collect::<Result<Vec<_>, Failure>>()?;
    control_first(state, &mut own)?;
    Ok((world, own))
}

/// Puts the cell that holds the control database first, whatever the order of the files is today.
fn control_first(state: &State, cells: &mut [OwnCell]) -> Result<(), Failure> {
    match state.read(CONTROL_CELL)? {
        Some(id) => {
            let id = id.trim();
            let found = cells.iter().position(|cell| cell.id.as_str() == id);
            let at = found.ok_or_else(|| {
                Failure::failed(format!(
                    "cell {id} holds the control database; declare it in {} again",
                    state.path(FLEET).display()
                ))
            })?;
            if let Some(up_to) = cells.get_mut(..=at) {
                up_to.rotate_right(1);
            }
        }
        None => {
            if let Some(first) = cells.first() {
                state.write(CONTROL_CELL, format!("{}\n", first.id).as_bytes())?;
            }
        }
    }
    Ok(())
}

async fn start_databases(
    state: &State,
    options: &UpOptions,
    secrets: &Secrets,
    cells: &[OwnCell],
    platform: &Platform,
    progress: &Progress,
) -> Result<Vec<Server>, Failure> {
    let binaries = postgres::find(state, options, progress).await?;
    let note = |text: &str| progress.note(text);
    let starting = cells
        .iter()
        .map(|cell| postgres::start(state, &binaries, secrets, cell, &note));
    let mut servers = Vec::new();
    for started in futures_util::future::join_all(starting).await {
        let (server, cluster) = started?;
        let stop = platform.stop_databases.clone();
        platform.databases.spawn(report(postgres::supervise(
            server.id.clone(),
            cluster,
            stop,
        )));
        servers.push(server);
    }
    Ok(servers)
}

async fn start_services(
    layout: &Layout<'_>,
    programs: &packages::Programs,
    modules: &[ModuleId],
    gateway: Arc<TcpListener>,
    platform: &Platform,
) -> Result<(), Failure> {
    let control = bind_free()?;
    let mut sockets = Vec::new();
    for module in modules {
        sockets.push((module.clone(), bind_free()?));
    }
    let addresses: Vec<(ModuleId, SocketAddr)> = sockets
        .iter()
        .map(|(module, socket)| Ok((module.clone(), socket.local_addr().of(module)?)))
        .collect::<Result<_, Failure>>()?;
    let control_address = control.local_addr().of("control socket")?;
    let control_file = layout.write_control()?;
    let gateway_file = layout.write_gateway(control_address, &addresses)?;

    let (deaths, mut died) = mpsc::channel(8);
    let launch = |spec: ChildSpec| {
        let task = children::supervise(spec, platform.stop.clone(), deaths.clone());
        platform.services.spawn(report(task));
    };
    launch(layout.role("control", &control_file, control)?);
    for (module, socket) in sockets {
        let file = layout.write_module(&module)?;
        launch(layout.module(programs, &module, &file, socket)?);
    }
    launch(layout.role("gateway", &gateway_file, gateway)?);
    drop(deaths);

    let healthy = async {
        probe(&format!("http://{control_address}"), layout, "/healthz").await?;
        for (_, address) in &addresses {
            probe(&format!("http://{address}"), layout, "/healthz").await?;
        }
        probe(&layout.origin(""), layout, "/healthz").await
    };
    tokio::select! {
        healthy = healthy => healthy,
        Some(last_words) = died.recv() => Err(Failure::failed(last_words)),
    }
}

/// Waits until something answers; its socket exists already, so the request waits in its queue.
async fn probe(base: &str, layout: &Layout<'_>, path: &str) -> Result<(), Failure> {
    let ca = std::fs::read(&layout.tls.ca).of(layout.tls.ca.display())?;
    let client = Client::new(base, &ca, None)?;
    for _attempt in 0..600 {
        match client.probe(path).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(base, "not healthy yet: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err(Failure::failed(format!(
        "{base}{path} does not become healthy; see the logs"
    )))
}

impl Platform {
    async fn shut_down(&self) {
        self.stop.cancel();
        self.services.close();
        self.services.wait().await;
        self.stop_databases.cancel();
        self.databases.close();
        self.databases.wait().await;
    }
}

/// Logs how a supervised task ended.
async fn report(task: impl Future<Output = Result<(), Failure>>) {
    if let Err(failure) = task.await {
        tracing::error!("{failure}");
    }
}

/// The signals that end the platform.
struct Told {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Told {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).of("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).of("SIGINT")?,
            hangup: signal(SignalKind::hangup()).of("SIGHUP")?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Binds the gateway's port: the one asked for, the one used before, or the usual one. Zero asks for
/// the one used before or, the first time, for any.
fn bind_gateway(state: &State, asked: Option<u16>) -> Result<Arc<TcpListener>, Failure> {
    let before = state
        .read("port")?
        .and_then(|text| text.trim().parse().ok());
    let named = asked.filter(|port| *port != 0);
    let port = named.or(before).or(asked).unwrap_or(PORT);
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
        Failure::failed(match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "port {port} is in use by another program; stop that one, or choose another with \
                 --http-port"
            ),
            _ => format!("can't listen on port {port}: {error}; choose another with --http-port"),
        })
    })?;
    let port = listener.local_addr().of("gateway socket")?.port();
    state.write("port", format!("{port}\n").as_bytes())?;
    Ok(Arc::new(listener))
}

/// A ready file tells of a platform that runs; ours does not run yet, or any more.
fn forget_ready(state: &State, other: Option<&Path>) -> Result<(), Failure> {
    let own: PathBuf = state.path("ready.json");
    for path in [Some(own.as_path()), other].into_iter().flatten() {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).of(path.display());
            }
            _ => {}
        }
    }
    Ok(())
}
