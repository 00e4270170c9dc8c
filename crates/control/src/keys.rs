//! The gateway's keys: kept in a file, made known to all who verify, replaced while requests flow.
//!
//! The file (`keys/ring.json` of a state folder) is the truth, and gateways read it. Modules read
//! another, which holds public halves only; cells are told by SQL. Operators only say that they want a
//! new key ([`waangu_registry::Rotation`]).
//!
//! Invariants:
//! - nobody signs with a key before all who verify know it: modules' file and all cells first, then
//!   the ring;
//! - a key is accepted until what it signed last has expired, and then nowhere: first cells and
//!   modules' file, then the ring;
//! - each activation takes the ring from what it is to what it should be, so it may be killed
//!   anywhere and repeated; without a wish and without keys on their way it does nothing;
//! - a secret is in the ring's file and, as pads, in cells; never in the registry or a log.
//!
//! Left out: several control planes on one ring (the file has one writer).

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use waangu_identity::context::MAX_LIFETIME_SECONDS;
use waangu_identity::keys::KeyError;
use waangu_identity::{Jwks, KeyRing};
use waangu_kernel::{CellId, Clock, Fault, KeyState, fault};
use waangu_process::file::{LOOK, write_private};
use waangu_registry::{Registry, Rotation};
use waangu_tenancy::CellAdmin;

/// How long a replaced key is accepted, in seconds: the life of a context, the five seconds that
/// clocks may differ, the second after which a gateway looks at its file, and some to spare.
pub const KEY_GRACE_SECONDS: i64 = MAX_LIFETIME_SECONDS + 15;

/// Longest pause between two looks, in case nobody calls.
const IDLE: Duration = Duration::from_secs(30);

/// Pause after a step that failed.
const AGAIN: Duration = Duration::from_secs(2);

/// Who acts when nobody asks.
const ACTOR: &str = "control";

/// Where the keys are, and how long an old one is accepted.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    /// The ring, with its secrets.
    pub ring: PathBuf,
    /// The public halves, for modules.
    pub public: PathBuf,
    /// How long a replaced key is accepted, in seconds ([`KEY_GRACE_SECONDS`]).
    pub grace: i64,
}

impl KeyFiles {
    /// Reads the ring.
    ///
    /// # Errors
    /// `internal`, when it can't be read.
    pub(crate) fn read(&self) -> Result<KeyRing, Fault> {
        let bytes = std::fs::read(&self.ring).map_err(|error| broken(&self.ring, &error))?;
        KeyRing::from_json(&bytes).map_err(|error| broken(&self.ring, &error))
    }

    fn write(&self, ring: &KeyRing) -> Result<(), Fault> {
        let text = ring.to_json().map_err(|error| unusable(&error))?;
        write_private(&self.ring, &text).map_err(|error| broken(&self.ring, &error))
    }

    /// Tells modules which keys to accept.
    ///
    /// # Errors
    /// `internal`, when the file can't be written.
    pub fn publish(&self, public: &Jwks) -> Result<(), Fault> {
        let text =
            serde_json::to_vec_pretty(public).map_err(|error| broken(&self.public, &error))?;
        write_private(&self.public, &text).map_err(|error| broken(&self.public, &error))
    }
}

/// Takes the keys through their lives.
pub(crate) struct Keeper {
    files: KeyFiles,
    registry: Registry,
    cells: HashMap<CellId, Arc<CellAdmin>>,
    clock: Arc<dyn Clock>,
    ring: Mutex<KeyRing>,
    problem: Mutex<Option<String>>,
    wake: Notify,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({:?})", self.ring())
    }
}

impl Keeper {
    pub(crate) fn new(
        files: KeyFiles,
        registry: Registry,
        cells: HashMap<CellId, Arc<CellAdmin>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Fault> {
        let ring = Mutex::new(files.read()?);
        Ok(Self {
            files,
            registry,
            cells,
            clock,
            ring,
            problem: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// The keys as they are now.
    pub(crate) fn ring(&self) -> KeyRing {
        lock(&self.ring).clone()
    }

    /// Why the last step failed, if it did.
    pub(crate) fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// Somebody wants something.
    pub(crate) fn call(&self) {
        self.wake.notify_one();
    }

    /// Keeps the keys until told to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = tokio::select! {
                pause = self.activate() => pause,
                () = stop.cancelled() => return,
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One look; says how long nothing will be due.
    async fn activate(&self) -> Duration {
        let (problem, pause) = match self.step().await {
            Ok(pause) => (None, pause),
            Err(failure) => {
                let cause = failure.operator_cause();
                tracing::warn!(cause, "keys: {failure}");
                let text =
                    cause.map_or_else(|| failure.to_string(), |why| format!("{failure}: {why}"));
                (Some(text), AGAIN)
            }
        };
        *lock(&self.problem) = problem;
        pause
    }

    async fn step(&self) -> Result<Duration, Fault> {
        let mut session = self.registry.session().await?;
        let wishes = session.begin().await?.list_rotations().await?;
        self.prepare(&wishes)?;

        let ring = self.ring();
        if ring.next().next().is_some() {
            self.tell(&ring).await?;
            self.audit("key.promote", &ring, KeyState::Next).await?;
            self.keep(ring.promoted(self.clock.unix_seconds()))?;
        }
        let (ring, now) = (self.ring(), self.clock.unix_seconds());
        let left = ring.without_retired(now, self.files.grace);
        if left != ring {
            self.tell(&left).await?;
            // Until every module has looked: what is gone from the ring is accepted nowhere.
            tokio::time::sleep(LOOK).await;
            self.keep(left)?;
        }
        self.finish(&wishes).await?;
        let due = self.ring().next_retirement(self.files.grace);
        let due = due.map(|due| u64::try_from(due.saturating_sub(self.clock.unix_seconds())));
        Ok(match due {
            Some(seconds) => Duration::from_secs(seconds.unwrap_or(0)).min(IDLE),
            None => IDLE,
        })
    }

    /// Makes the keys that are wanted and do not exist.
    fn prepare(&self, wishes: &[Rotation]) -> Result<(), Fault> {
        let (mut ring, now) = (self.ring(), self.clock.unix_seconds());
        let mut changed = false;
        for wish in wishes {
            let made = ring.prepare(wish.kind, wish.id, now);
            changed |= made.map_err(|error| unusable(&error))?;
        }
        if changed { self.keep(ring) } else { Ok(()) }
    }

    /// Tells all who verify which keys to accept: these, and no others.
    async fn tell(&self, ring: &KeyRing) -> Result<(), Fault> {
        self.files
            .publish(&ring.public().map_err(|error| unusable(&error))?)?;
        let proofs = ring.proofs().map_err(|error| unusable(&error))?;
        let cells = self.cells.iter().map(async |(id, cell)| {
            cell.replace_keys(&proofs).await.map_err(|fault| {
                let cause = fault.operator_cause().unwrap_or_default().to_owned();
                let text = format!("cell {id} does not know the gateway's keys yet");
                fault::DATABASE_UNAVAILABLE.fault(text).cause(cause)
            })
        });
        futures_util::future::try_join_all(cells).await.map(drop)
    }

    /// From here on, gateways sign with the ring's current keys.
    fn keep(&self, ring: KeyRing) -> Result<(), Fault> {
        self.files.write(&ring)?;
        for key in ring.keys() {
            tracing::info!(kind = %key.kind, id = key.id, state = key.state.as_str(), "key {key:?}");
        }
        *lock(&self.ring) = ring;
        Ok(())
    }

    /// Records what is about to happen to keys in this state.
    async fn audit(&self, action: &str, ring: &KeyRing, state: KeyState) -> Result<(), Fault> {
        let mut session = self.registry.session().await?;
        let tx = session.begin().await?;
        for key in ring.keys().iter().filter(|key| key.state == state) {
            let detail = json!({ "kind": key.kind, "key": key.id, "rotation": key.rotation });
            tx.record_audit(ACTOR, action, None, &detail).await?;
        }
        tx.commit().await
    }

    /// Closes the wishes that have come true.
    async fn finish(&self, wishes: &[Rotation]) -> Result<(), Fault> {
        let ring = self.ring();
        let done = |wish: &&Rotation| ring.finished(wish.kind, wish.id);
        for wish in wishes.iter().filter(done) {
            let mut session = self.registry.session().await?;
            let tx = session.begin().await?;
            if tx.finish_rotation(wish.id).await? {
                let detail = json!({ "kind": wish.kind, "rotation": wish.id });
                tx.record_audit(ACTOR, "key.retire", None, &detail).await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(path: &Path, why: &dyn fmt::Display) -> Fault {
    let cause = format!("{}: {why}", path.display());
    fault::INTERNAL
        .fault("a file of the gateway's keys can't be used")
        .cause(cause)
}

pub(crate) fn unusable(error: &KeyError) -> Fault {
    fault::INTERNAL
        .fault("the gateway's keys can't be used")
        .cause(error)
}
