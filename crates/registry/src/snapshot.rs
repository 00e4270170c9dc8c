//! The change feed for gateways: everything once, then only what changed.
//!
//! A tenant's row carries the id of the transaction that last touched it. The reader remembers the
//! oldest transaction that was still running when it looked (`pg_snapshot_xmin`) and next time reads
//! every row marked with that id or a later one. So a transaction that commits late is never missed,
//! whatever order the commits come in; a row may be read twice, which is harmless.
//!
//! Invariant: the reader's login sees the views `registry.tenant_route` and `registry.entitlement_set`
//! and the modules, no more.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, NoTls, Row, Socket, Statement, tls::NoTlsStream,
};
use waangu_kernel::entitlement::Values;
use waangu_kernel::{
    Fault, ModuleId, Placement, PlanId, ProfileId, RoleName, Slug, TenantId, UserId,
};

use crate::db::{BOUNDS, column, from_driver, internal, parsed};
use crate::entitlements::{Sets, sets_from, values_from};
use crate::places::{StoredModule, module_from, parsed_list};
use crate::tenants::placement_from;

/// Rows of one part, when everything is read: what a reader holds twice for a moment, and never gives back.
const PART: i64 = 250;

/// Longest pause between two looks when no notification comes.
const POLL: Duration = Duration::from_secs(5);

/// What a gateway knows of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRoute {
    /// Its number.
    pub id: TenantId,
    /// Its slug.
    pub slug: Slug,
    /// Whether it is served.
    pub active: bool,
    /// Its parent.
    pub parent: Option<TenantId>,
    /// Where its data lives.
    pub placement: Placement,
    /// Where it will soon live, while a move follows its changes.
    pub heading: Option<Placement>,
    /// Modules that are on and ready.
    pub modules: Vec<ModuleId>,
    /// Roles of its enabled users that have any.
    pub grants: HashMap<UserId, Vec<RoleName>>,
    /// What it has subscribed to.
    pub plan: Option<PlanId>,
    /// Its blueprint.
    pub profile: Option<ProfileId>,
    /// Its own flags and limits, if it has any.
    pub own: Option<Values>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChange {
    /// The tenant is new or has changed.
    Put(Box<TenantRoute>),
    /// The tenant is gone, and nothing must be served under this slug for its sake.
    Gone(TenantId, Slug),
}

/// A reader of changes. It reconnects by being made anew; then everything has to be read again.
pub struct Feed {
    client: Client,
    queries: Queries,
    wake: mpsc::Receiver<()>,
    since: i64,
    whole: Option<Whole>,
}

/// How far a reading of everything has come.
struct Whole {
    horizon: i64,
    after: i64,
}

/// What is asked at each change. A new version of the control database may make them fail: then the
/// reader makes a new feed.
struct Queries {
    horizon: Statement,
    routes: Statement,
    part: Statement,
    modules: Statement,
    sets: Statement,
}

impl Queries {
    async fn prepare(client: &Client) -> Result<Self, Fault> {
        let prepare = async |sql: &str| client.prepare(sql).await.map_err(from_driver);
        Ok(Self {
            horizon: prepare(
                "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as horizon",
            )
            .await?,
            routes: prepare("select * from registry.tenant_route where changed_xid >= $1").await?,
            part: prepare("select * from registry.tenant_route where id > $1 order by id limit $2")
                .await?,
            modules: prepare("select manifest from registry.module order by id").await?,
            sets: prepare("select * from registry.entitlement_set").await?,
        })
    }
}

impl Feed {
    /// Connects and listens.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn connect(dsn: &str) -> Result<Self, Fault> {
        let mut config: Config = dsn.parse().map_err(from_driver)?;
        config.connect_timeout(POLL).options(BOUNDS);
        let (client, connection) = config.connect(NoTls).await.map_err(from_driver)?;
        let (tell, wake) = mpsc::channel(1);
        #[expect(
            clippy::disallowed_methods,
            reason = "the driver's own task; it ends when `client` or `wake` is dropped"
        )]
        drop(tokio::spawn(pump(connection, tell)));
        client
            .batch_execute("listen waangu_change")
            .await
            .map_err(from_driver)?;
        Ok(Self {
            queries: Queries::prepare(&client).await?,
            client,
            wake,
            since: 0,
            whole: None,
        })
    }

    /// Waits until something may have changed, or a few seconds have passed.
    ///
    /// # Errors
    /// `database-unavailable` when the connection has ended.
    pub async fn changed(&mut self) -> Result<(), Fault> {
        match tokio::time::timeout(POLL, self.wake.recv()).await {
            Ok(None) => Err(waangu_kernel::fault::DATABASE_UNAVAILABLE
                .fault("the connection to the control database has ended")),
            Ok(Some(())) | Err(_) => Ok(()),
        }
    }

    /// Reads all changes since the last call; of a new feed, everything at once.
    ///
    /// # Errors
    /// `database-unavailable`; then make a new feed.
    pub async fn read(&mut self) -> Result<Vec<RouteChange>, Fault> {
        let horizon = self.horizon().await?;
        let rows = self
            .client
            .query(&self.queries.routes, &[&self.since])
            .await
            .map_err(from_driver)?;
        let changes = rows.iter().map(change_from).collect::<Result<_, _>>()?;
        self.since = horizon;
        Ok(changes)
    }

    /// Reads everything, a part with each call, until there is none: then changes are read from the first
    /// part on, so that what changed meanwhile is not missed.
    ///
    /// # Errors
    /// `database-unavailable`; then make a new feed.
    pub async fn read_part(&mut self) -> Result<Option<Vec<RouteChange>>, Fault> {
        let Whole { horizon, after } = match self.whole.take() {
            Some(whole) => whole,
            None => Whole {
                horizon: self.horizon().await?,
                after: 0,
            },
        };
        let rows = self
            .client
            .query(&self.queries.part, &[&after, &PART])
            .await
            .map_err(from_driver)?;
        let Some(last) = rows.last() else {
            self.since = horizon;
            return Ok(None);
        };
        let after = column(last, "id")?;
        self.whole = Some(Whole { horizon, after });
        rows.iter()
            .map(change_from)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The oldest transaction that is still running.
    async fn horizon(&self) -> Result<i64, Fault> {
        let row = self.client.query_one(&self.queries.horizon, &[]).await;
        column(&row.map_err(from_driver)?, "horizon")
    }

    /// All installed modules.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn modules(&self) -> Result<Vec<StoredModule>, Fault> {
        let rows = self.client.query(&self.queries.modules, &[]).await;
        let rows = rows.map_err(from_driver)?;
        rows.iter().map(module_from).collect()
    }

    /// What plans and profiles give.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn sets(&self) -> Result<Sets, Fault> {
        let rows = self.client.query(&self.queries.sets, &[]).await;
        let rows = rows.map_err(from_driver)?;
        sets_from(&rows)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Feed(since {})", self.since)
    }
}

/// Drives the connection and turns notifications into wake-ups.
async fn pump(mut connection: Connection<Socket, NoTlsStream>, tell: mpsc::Sender<()>) {
    let mut messages = std::pin::pin!(std::future::poll_fn(move |cx| connection.poll_message(cx)));
    while let Some(Ok(message)) = messages.as_mut().await {
        if matches!(message, AsyncMessage::Notification(_)) {
            // A full channel already holds a wake-up; a closed one means that nobody listens.
            if let Err(mpsc::error::TrySendError::Closed(())) = tell.try_send(()) {
                return;
            }
        }
    }
}

fn change_from(row: &Row) -> Result<RouteChange, Fault> {
    let id = TenantId::new(column(row, "id")?)?;
    let slug: Slug = parsed(row, "slug")?;
    if column(row, "gone")? {
        return Ok(RouteChange::Gone(id, slug));
    }
    let parent: Option<i64> = column(row, "parent_id")?;
    let plan: Option<&str> = column(row, "plan")?;
    let profile: Option<&str> = column(row, "profile")?;
    let grants: serde_json::Value = column(row, "grants")?;
    let grants: HashMap<uuid::Uuid, Vec<RoleName>> =
        serde_json::from_value(grants).map_err(internal)?;
    Ok(RouteChange::Put(Box::new(TenantRoute {
        id,
        slug,
        active: column(row, "active")?,
        parent: parent.map(TenantId::new).transpose()?,
        placement: placement_from(row)?,
        heading: heading_from(row)?,
        modules: parsed_list(row, "modules")?,
        grants: grants
            .into_iter()
            .map(|(id, roles)| (UserId::from_uuid(id), roles))
            .collect(),
        plan: plan.map(str::parse).transpose()?,
        profile: profile.map(str::parse).transpose()?,
        own: values_from(row, "own")?,
    })))
}

/// Where the tenant is heading; a registry that is not of our version yet does not say.
fn heading_from(row: &Row) -> Result<Option<Placement>, Fault> {
    let Ok(Some(epoch)) = row.try_get("heading_epoch") else {
        return Ok(None);
    };
    Ok(Some(Placement {
        cell: parsed(row, "heading_cell")?,
        tier: parsed(row, "heading_tier")?,
        bucket: column(row, "heading_bucket")?,
        epoch,
    }))
}
