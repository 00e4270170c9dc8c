//! One move, driven step by step.
//!
//! Invariants:
//! - `lead` holds the claim, freezes and fences: who has lost the claim can do neither;
//! - every attempt has a name of its own, which slot, publication and the note in the target share; a
//!   worker of another attempt finds its note gone and its transaction fails.
//!
//! A [`Relocation`] whose call was dropped half-way must be dropped too: its sessions end with it. To stop
//! one and go on with it (to abort, most likely), cancel its [`Relocation::stop_token`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, NoTls, Statement};
use tokio_util::sync::CancellationToken;
use waangu_kernel::placement::Tier;
use waangu_kernel::{ModuleId, TenantId};
use waangu_tenancy::{CellAdmin, ModulePackage};

use self::guard::Guard;
pub use self::observe::is_fenced;
use self::observe::{NOTES, drop_remains, home, keep_place, prefix};
use crate::laps::Laps;
use crate::pace::{Pace, Steering};
use crate::place::{SILENCE, Side};
use crate::progress::{Phase, Progress, Teller};
use crate::state::{self, Home, Step};
use crate::table::{Table, tables};
use crate::verify::LOOKING_UP;
use crate::{Error, stop};

mod apply;
mod batch;
mod compare;
mod copy;
mod cutover;
mod follow;
mod guard;
mod leave;
mod observe;
mod reverse;
mod statements;
mod undo;

pub(crate) use reverse::WARM;
pub use reverse::{Outlook, look_back};
pub use undo::undo;

/// The name that slots and publications begin with.
pub(crate) const PREFIX: &str = "waangu_move_";

/// Longest wait for what other tenants' transactions hold up.
const OTHERS: Duration = Duration::from_mins(1);

/// Bounds of a move.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest time that the tenant's writers wait at a stretch.
    pub max_pause: Duration,
    /// How often it is tried to fit into that, with growing time between.
    pub attempts: u32,
    /// Bytes of rows copied in a second, if limited.
    pub rate: Option<u64>,
    /// Bytes of the source's log that the move may hold back.
    pub max_held: i64,
    /// Whether a slot at the new place shall make a move back one without a copy.
    pub way_back: bool,
    /// How old the snapshot of a copy may become: no dead row of either server goes as long as it lives.
    pub max_copy: Duration,
    /// How long an end may be silent before it counts as lost.
    pub silence: Duration,
    /// Which protections are on.
    pub safety: Safety,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_pause: Duration::from_millis(500),
            attempts: 8,
            rate: None,
            max_held: 3 << 30,
            max_copy: Duration::from_hours(6),
            silence: SILENCE,
            way_back: false,
            safety: Safety::Full,
        }
    }
}

/// Protections that a test can take away, to show that they are needed. Never anything but `Full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// All.
    Full,
    /// Writers are not kept out while the last changes are drained.
    WithoutLock,
    /// The source stays open.
    WithoutFence,
}

/// What is to be moved, and where to.
#[derive(Debug, Clone)]
pub struct Request {
    /// The tenant.
    pub tenant: TenantId,
    /// Where it is; the placement's epoch is the one before the move.
    pub source: Side,
    /// Where it goes; the placement's epoch is one more.
    pub target: Side,
    /// Its modules, as their tables stand at the source.
    pub packages: Vec<ModulePackage>,
    /// Who may read it as part of a subtree.
    pub lineage: Vec<i64>,
    /// Bounds.
    pub options: Options,
}

/// One tenant on its way.
pub struct Relocation {
    request: Request,
    admin: CellAdmin,
    lead: Client,
    reader: Client,
    writer: Client,
    tables: Arc<[Table]>,
    attempt: String,
    prepared: apply::Prepared,
    reading: Option<follow::Reading>,
    /// The statement of `reader` that writes a note.
    noting: Option<Statement>,
    /// The statement of `lead` that fences.
    fencing: Option<Statement>,
    watch: Option<batch::Watch>,
    /// Transactions applied since a snapshot of the source was last known to see all of them.
    recent: Vec<u32>,
    /// When the source was last asked what the move holds back.
    looked: Option<Instant>,
    /// What the step in hand has spent its time on.
    laps: Laps,
    pace: Pace,
    /// As long as rows may be read.
    steering: Option<Steering>,
    teller: Teller,
    stop: CancellationToken,
}

impl Relocation {
    /// Claims the tenant's move and makes the target's tables ready. Nothing is visible to the tenant.
    ///
    /// # Errors
    /// `Busy`; `Refused` when its tables can't be moved; `Database`, `Cell`.
    pub async fn begin(request: Request) -> Result<Self, Error> {
        let guard = Guard::of(&request);
        Box::pin(guard.over(Self::claim(request))).await
    }

    async fn claim(request: Request) -> Result<Self, Error> {
        let (source, target, tenant) = (&request.source, &request.target, request.tenant);
        if target.placement.epoch != source.placement.epoch + 1 {
            return Err(Error::Refused("the epochs don't follow".to_owned()));
        }
        let same_cell =
            source.cell.host == target.cell.host && source.cell.port == target.cell.port;
        if same_cell && source.placement.database(tenant) == target.placement.database(tenant) {
            return Err(Error::Refused("it is there already".to_owned()));
        }
        let mut laps = Laps::begin();
        let lead = source.session(tenant).await?;
        let sql = "select pg_try_advisory_lock(-5, hashint8($1))";
        let claimed: bool = lead.query_one(sql, &[&tenant.number()]).await?.try_get(0)?;
        if !claimed {
            return Err(Error::Busy);
        }
        laps.end("claim");
        let admin = CellAdmin::new(target.cell.clone());
        let (reader, ()) =
            future::try_join(prepared(source, tenant), make_place(&admin, &request)).await?;
        laps.end("place");
        let writer = prepared(target, tenant).await?;
        keep_place(&writer, tenant).await?;
        reverse::forget_outdated(&writer, &request).await?;
        laps.end("sessions");
        let modules: Vec<&ModuleId> = request.packages.iter().map(ModulePackage::id).collect();
        let tables = tables((&reader, source), (&writer, target), tenant, &modules).await?;
        let mut relocation = Self {
            admin,
            lead,
            reader,
            writer,
            tables: tables.into(),
            attempt: String::new(),
            prepared: apply::Prepared::new(),
            reading: None,
            noting: None,
            fencing: None,
            watch: None,
            recent: Vec::new(),
            looked: None,
            laps,
            pace: Pace::new(),
            steering: None,
            teller: Teller::new(),
            stop: CancellationToken::new(),
            request,
        };
        relocation.read_attempt().await?;
        relocation.laps.end("tables");
        relocation.tell_laps("begun");
        Ok(relocation)
    }

    /// The next step, from what both databases hold.
    ///
    /// # Errors
    /// `Database`.
    pub async fn next(&self) -> Result<Step, Error> {
        let seen = timeout(self.request.options.silence, self.observe()).await;
        let late = |_late| Error::Database("an end does not answer".to_owned());
        Ok(state::next(&seen.map_err(late)??))
    }

    /// Does one step. Beside [`Step::Open`], or behind it, the caller makes the registry name the new
    /// place; before the fence never.
    ///
    /// # Errors
    /// As [`Error`] says; the next worker goes on from [`Relocation::next`].
    pub async fn apply(&mut self, step: &Step) -> Result<(), Error> {
        let guard = match step {
            Step::Copy | Step::Adopt | Step::CutOver => {
                let (source, target) = (&self.request.source, &self.request.target);
                self.steering
                    .get_or_insert_with(|| Steering::begin(source, target, &self.pace));
                Guard::bounded(&self.request, &self.teller, &self.pace)
            }
            _ => Guard::of(&self.request),
        };
        let done = Box::pin(guard.over(self.step(step))).await;
        if done.is_err() {
            // Nobody reads on for a while, and a slot that is held active keeps all of the log.
            self.reading = None;
        }
        done
    }

    async fn step(&mut self, step: &Step) -> Result<(), Error> {
        let token = self.stop.clone();
        let done = match step {
            Step::Copy => stop::unless(&token, self.copy()).await,
            Step::Adopt => self.adopt().await,
            Step::CutOver => {
                self.watch = None;
                match self.cut_over().await {
                    Err(error) if self.is_from_kept_rows() => {
                        Err(self.give_up_kept_rows(error).await)
                    }
                    done => done,
                }
            }
            Step::Open => {
                self.laps.end("switch");
                let opened = self.open().await;
                self.laps.end("open");
                self.tell_laps("opened");
                opened
            }
            Step::Finish => {
                let sql = "delete from waangu_relocation.evidence where tenant_id = $1";
                let number = self.request.tenant.number();
                self.reader.execute(sql, &[&number]).await?;
                let finished = self.finish().await;
                self.tell_laps("finished");
                finished
            }
            Step::Done => Ok(()),
            Step::Refuse(why) => Err(Error::Refused((*why).to_owned())),
        };
        if matches!(done, Err(Error::Cancelled)) {
            self.begin_sessions_anew().await?;
        }
        done
    }

    /// How far it is, as it goes on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.teller.listen()
    }

    /// Cancelling it makes [`Relocation::apply`] return [`Error::Cancelled`] within moments, unless the
    /// commit point is about to be reached or behind: then the step ends as it would have, and so does a
    /// step that is begun behind the fence. Nothing is undone by it: that is what
    /// [`Relocation::abort`] is for.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// What was under way when work was dropped is stopped; the claim is kept.
    async fn begin_sessions_anew(&mut self) -> Result<(), Error> {
        self.reading = None;
        self.noting = None;
        self.prepared.clear();
        let tenant = self.request.tenant;
        let reader = self.request.source.session(tenant).await?;
        let writer = self.request.target.session(tenant).await?;
        let old = [
            std::mem::replace(&mut self.reader, reader),
            std::mem::replace(&mut self.writer, writer),
        ];
        for session in old {
            // Fails if it has ended already.
            drop(session.cancel_token().cancel_query(NoTls).await);
        }
        keep_place(&self.writer, tenant).await?;
        for end in [&self.reader, &self.writer] {
            end.batch_execute(LOOKING_UP).await?;
        }
        Ok(())
    }

    /// Undoes a move that is not fenced yet: nothing of it is left.
    ///
    /// # Errors
    /// `Refused` behind the commit point; `Database`, `Cell`.
    pub async fn abort(&mut self) -> Result<(), Error> {
        let guard = Guard::of(&self.request);
        Box::pin(guard.over(self.take_back())).await
    }

    async fn take_back(&mut self) -> Result<(), Error> {
        if !state::may_abort(&self.observe().await?) {
            return Err(Error::Refused("it is behind the commit point".to_owned()));
        }
        self.forget_kept_rows().await?;
        self.forget_and_drop(None).await?;
        let (tenant, placement) = (self.request.tenant, &self.request.target.placement);
        if placement.tier == Tier::Shared {
            let clear = self.clear_sql();
            self.writer.batch_execute(&clear).await?;
            return Ok(());
        }
        Ok(self.admin.clear_place(tenant, placement).await?)
    }

    /// Logs what the time was spent on, and begins anew.
    fn tell_laps(&mut self, what: &str) {
        let (tenant, laps) = (
            self.request.tenant,
            std::mem::replace(&mut self.laps, Laps::begin()),
        );
        tracing::info!(%tenant, what, %laps, "a step of a move");
    }

    /// The name of this attempt's slot and publication.
    fn slot(&self) -> String {
        format!("{}{}", prefix(self.request.tenant), self.attempt)
    }

    async fn read_attempt(&mut self) -> Result<(), Error> {
        let sql = "select attempt from waangu_relocation.progress where tenant_id = $1";
        let number = self.request.tenant.number();
        if let Some(row) = self.writer.query_opt(sql, &[&number]).await? {
            self.attempt = row.try_get(0)?;
        }
        Ok(())
    }

    /// Opens the target. Only behind a fence that everybody can see.
    async fn open(&mut self) -> Result<(), Error> {
        let tenant = self.request.tenant;
        let after = self.request.target.placement.epoch;
        if home(&self.reader, tenant).await? != Some((Home::Moved, after))
            && self.request.options.safety != Safety::WithoutFence
        {
            return Err(Error::Refused("the source is not fenced".to_owned()));
        }
        // As it was when it was fenced: a suspended tenant stays suspended.
        let sql = "select state from waangu_relocation.fence where tenant_id = $1 and epoch = $2";
        let noted = self
            .reader
            .query_opt(sql, &[&tenant.number(), &after])
            .await?;
        let state: String = match &noted {
            Some(row) => row.try_get(0)?,
            None => "active".to_owned(),
        };
        // What the tenant writes here comes behind this position, what the move has written before.
        let sql = "with home as (
                       insert into waangu.home (tenant_id, state, epoch) values ($1, $2, $3)
                       on conflict (tenant_id) do update
                       set state = excluded.state
                         , epoch = excluded.epoch
                       where waangu.home.epoch < excluded.epoch
                       returning tenant_id
                   )
                   insert into waangu_relocation.opened (tenant_id, attempt, lsn)
                   select tenant_id, $4, pg_current_wal_insert_lsn() from home
                   on conflict (tenant_id) do update
                   set attempt = excluded.attempt
                     , lsn = excluded.lsn";
        self.writer
            .execute(sql, &[&tenant.number(), &state, &after, &self.attempt])
            .await?;
        self.teller.phase(Phase::Open);
        Ok(())
    }

    /// Leaves the tenant at its new place with nothing of the move but the way back.
    async fn finish(&mut self) -> Result<(), Error> {
        let kept = self.keep_way_back().await?;
        self.forget_and_drop(kept.as_deref()).await
    }

    /// Forgets the note first, so that nobody resumes on a slot that is about to go.
    async fn forget_and_drop(&mut self, kept: Option<&str>) -> Result<(), Error> {
        let tenant = self.request.tenant;
        let sql = "with opened as (delete from waangu_relocation.opened where tenant_id = $1)
                   delete from waangu_relocation.progress where tenant_id = $1";
        self.writer.execute(sql, &[&tenant.number()]).await?;
        self.reading = None;
        self.laps.end("note");
        for end in [&self.reader, &self.writer] {
            drop_remains(end, tenant, kept).await?;
        }
        self.laps.end("slot");
        let sql = "delete from waangu_relocation.fence where tenant_id = $1";
        self.reader.execute(sql, &[&tenant.number()]).await?;
        self.teller.phase(Phase::Done);
        Ok(())
    }

    /// The statements that take the tenant's rows out of the target.
    fn clear_sql(&self) -> String {
        let number = self.request.tenant.number();
        let mut sql = "begin; set local session_replication_role = replica;".to_owned();
        for table in self.tables.iter() {
            let clear = format!("delete from {} where tenant_id = {number};", table.target);
            sql.push_str(&clear);
        }
        sql + "commit"
    }
}

/// A session at an end that has its notes.
async fn prepared(side: &Side, tenant: TenantId) -> Result<Client, Error> {
    let session = side.session(tenant).await?;
    session.batch_execute(NOTES).await?;
    session.batch_execute(LOOKING_UP).await?;
    Ok(session)
}

/// Makes the target's database, or takes one that is ready, and its tables.
async fn make_place(admin: &CellAdmin, request: &Request) -> Result<(), Error> {
    let mut place = admin.place(request.tenant, &request.target.placement);
    let packages: Vec<&ModulePackage> = request.packages.iter().collect();
    if !place.take_from_stock(&packages).await? {
        place.ensure().await?;
    }
    for package in packages {
        place.ensure_module(package).await?;
    }
    Ok(())
}

impl std::fmt::Debug for Relocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relocation({} {})", self.request.tenant, self.attempt)
    }
}
