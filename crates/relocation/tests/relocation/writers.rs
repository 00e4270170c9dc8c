//! Writers with the module's own login, each with a ledger of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Client;
use waangu_identity::ContextKey;
use waangu_identity::proof::Access;
use waangu_kernel::{Placement, TenantId};
use waangu_testkit::{connect, context};

use crate::support::{Traveller, stock};

/// Id and name of every product that should be there.
pub(crate) type Ledger = BTreeMap<i64, String>;

/// Longest wait for one acknowledgement, crashes included.
const PATIENCE: Duration = Duration::from_mins(1);

/// Rows of one writer, about.
const ROWS: usize = 100;

/// Where the tenant is, as a router knows it: connection string and placement.
type Route = Arc<Mutex<(String, Placement)>>;

pub(crate) struct Writers {
    route: Route,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<(Ledger, Duration)>>,
}

impl Writers {
    pub(crate) fn start(tenant: &Traveller<'_>, count: i64) -> Self {
        let route: Route = Arc::new(Mutex::new(route(tenant)));
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count)
            .map(|number| {
                let writer = Writer {
                    tenant: tenant.tenant,
                    key: tenant.cell.key.clone(),
                    route: Arc::clone(&route),
                    next: number * 10_000_000,
                    random: 77 + u64::try_from(number).expect("a small number"),
                    ledger: Ledger::new(),
                    worst: Duration::ZERO,
                };
                Handle::current().spawn(writer.run(Arc::clone(&stop)))
            })
            .collect();
        Self { route, stop, tasks }
    }

    /// What a registry and its change feed do.
    pub(crate) fn follow(&self, tenant: &Traveller<'_>) {
        *self.route.lock().expect("no writer panicked") = route(tenant);
    }

    /// All ledgers, and the longest time that one write took.
    pub(crate) async fn end(self) -> (Ledger, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut worst) = (Ledger::new(), Duration::ZERO);
        for task in self.tasks {
            let (ledger, longest) = task.await.expect("a writer ends");
            all.extend(ledger);
            worst = worst.max(longest);
        }
        (all, worst)
    }
}

fn route(tenant: &Traveller<'_>) -> (String, Placement) {
    let database = tenant.placement.database(tenant.tenant);
    let dsn = tenant.cell.module_dsn(&stock(), &database);
    (dsn, tenant.placement.clone())
}

struct Writer {
    tenant: TenantId,
    key: ContextKey,
    route: Route,
    next: i64,
    random: u64,
    ledger: Ledger,
    worst: Duration,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) -> (Ledger, Duration) {
        let mut session: Option<(String, Client)> = None;
        while !stop.load(Ordering::Relaxed) {
            let (sql, after) = self.plan();
            let begun = Instant::now();
            // Until it is acknowledged: a connection may end after its COMMIT was done, so each write is
            // one that may be repeated.
            for attempt in 0.. {
                assert!(begun.elapsed() < PATIENCE, "never acknowledged: {sql}");
                let (dsn, placement) = self.route.lock().expect("no panic").clone();
                if session
                    .as_ref()
                    .is_none_or(|(known, client)| *known != dsn || client.is_closed())
                {
                    session = connect(&dsn).await.ok().map(|client| (dsn.clone(), client));
                }
                if let Some((_, client)) = &session
                    && self.write(client, &placement, &sql, attempt).await
                {
                    break;
                }
                // A stale route is kept for a while on purpose.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            self.ledger = after;
            self.worst = self.worst.max(begun.elapsed());
        }
        (self.ledger, self.worst)
    }

    /// One transaction; whether it was acknowledged.
    async fn write(&self, client: &Client, placement: &Placement, sql: &str, attempt: u32) -> bool {
        let proof = context(self.tenant, placement, &stock(), Access::Write, &self.key).proof;
        let schema = placement.schema(self.tenant, &stock());
        let script = format!(
            "begin; select waangu.enter('{}', {}, '{}'); set local search_path = {schema}; {sql}; commit",
            proof.claims, proof.kid, proof.mac
        );
        match client.batch_execute(&script).await {
            Ok(()) => true,
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                if attempt > 0 && code.as_deref() == Some("23505") {
                    drop(client.batch_execute("rollback").await);
                    return true;
                }
                // The base of a dropped old place is refused, or its session is ended before COMMIT.
                let known = ["WG001", "57P01", "57P02", "57P03", "3D000", "08006"];
                assert!(
                    code.as_deref().is_none_or(|code| known.contains(&code)),
                    "{error:?} for {sql}"
                );
                let ended = client.batch_execute("rollback").await;
                drop(ended);
                false
            }
        }
    }

    /// The next change, and the ledger if it succeeds.
    fn plan(&mut self) -> (String, Ledger) {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let dice = self.random >> 33;
        self.next += 1;
        let (id, mut after) = (self.next, self.ledger.clone());
        let place = usize::try_from(dice).expect("31 bits") % after.len().max(1);
        let old = after
            .iter()
            .nth(place)
            .map(|(id, name)| (*id, name.clone()));
        // Few rows that change often: what is slow about many is no concern of these tests.
        let kind = match dice % 10 {
            0..4 if after.len() > ROWS => 8,
            kind => kind,
        };
        let sql = match (old, kind) {
            (Some((old, _)), 4 | 5) => {
                after.insert(old, format!("n{id}"));
                // The payload is large and stays as it is.
                format!("update product set name = 'n{id}' where id = {old}")
            }
            (Some((old, name)), 6) => {
                after.remove(&old);
                after.insert(id, name);
                format!("update product set id = {id} where id = {old}")
            }
            (Some((old, _)), 7 | 8) => {
                after.remove(&old);
                format!("delete from product where id = {old}")
            }
            _ => {
                after.insert(id, format!("p{id}"));
                format!(
                    "insert into product (id, name, payload)
                     select {id}, 'p{id}', string_agg(md5((g::bigint * {id})::text), '') from generate_series(1, 200) g;
                     insert into movement (id, product_id) values ({id}, {id})"
                )
            }
        };
        (sql, after)
    }
}

/// The products that are really there.
pub(crate) async fn found(tenant: &Traveller<'_>) -> Ledger {
    let schema = tenant.placement.schema(tenant.tenant, &stock());
    // A row counts only with its payload and the generated column whole.
    let sql = format!(
        "select id, name from {schema}.product
          where tenant_id = $1 and length(payload) = 6400 and loud = upper(name)"
    );
    let rows = tenant
        .superuser()
        .await
        .query(&sql, &[&tenant.tenant.number()])
        .await;
    rows.expect("read products")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}
