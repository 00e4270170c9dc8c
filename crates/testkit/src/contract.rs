//! What every module withstands: a suite that a module's tests inherit with one call.
//!
//! It takes the module as it ships – its program and what that says of itself – and attacks it in all
//! three tiers, for one tenant against its neighbour: over HTTP with the neighbour's ids on every route
//! of the manifest, and with SQL as somebody who has stolen the module's database login.
//!
//! Invariant: an attack that was never seen to work proves nothing. Each SQL attack is first led
//! against a copy whose defence was taken away and must succeed there; the catalogue check must have
//! seen what was taken away, and its mends put it back.
//!
//! Left out: what PostgreSQL can't forbid. It stands in [`limits`], and the suite says so when one of
//! these no longer holds.

use http::{Method, StatusCode};
use serde_json::Value;
use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_tenancy::Rules;

use crate::world::{Caller, EVERYTHING, Home, World};
use crate::{connect, private_cell};

mod attacks;
mod limits;
mod newer;
mod pooled;
mod routes;
mod sql;

pub use newer::{Released, withstand_newer};
pub use waangu_tenancy::admin::Migration;

/// What a tenant has booked through the module's own routes.
#[derive(Debug, Clone)]
pub struct Seeded {
    /// One request for each route of the manifest, or more. It must succeed for this tenant, twice if it
    /// reads and once if it writes, and name its objects by their ids.
    pub examples: Vec<Example>,
    /// The ids that stand in the examples.
    pub ids: Vec<String>,
    /// A text of this tenant that nobody else has. Each of the module's tables has a row with it, or
    /// with one of the ids, and whatever has to be unique in a tenant holds it; the examples don't.
    pub secret: String,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Example {
    /// The route, as the manifest names it.
    pub route: &'static str,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The body.
    pub body: Option<Value>,
}

impl Example {
    /// A request that reads.
    pub fn get(route: &'static str, path: impl Into<String>) -> Self {
        Self {
            route,
            method: Method::GET,
            path: path.into(),
            body: None,
        }
    }

    /// A request that writes.
    pub fn write(
        method: Method,
        route: &'static str,
        path: impl Into<String>,
        body: Value,
    ) -> Self {
        Self {
            route,
            method,
            path: path.into(),
            body: Some(body),
        }
    }
}

/// One tier's stage: a tenant that attacks and one that is attacked.
struct Stage<'a> {
    world: &'a World,
    tier: Tier,
    ours: Party<'a>,
    theirs: Party<'a>,
    rules: Rules,
}

struct Party<'a> {
    home: &'a Home,
    seeded: Seeded,
}

/// Attacks a module in all three tiers. `seed` books something of everything that the module keeps,
/// in words that contain the given secret.
///
/// # Panics
/// When an attack succeeds, or when it fails even without the defence against it.
pub async fn withstand(program: &str, seed: impl AsyncFn(Caller<'_>, &str) -> Seeded) {
    let world = World::start_on(private_cell().await, program).await;
    for tier in Tier::ALL {
        let ours = world.tenant(tier).await;
        let theirs = world.neighbour(&ours).await;
        for home in [&ours, &theirs] {
            world.below(home, &[]).await;
        }
        let ours_seeded = seed(world.caller(&ours, EVERYTHING), "ours-only-7b2e").await;
        let theirs_seeded = seed(world.caller(&theirs, EVERYTHING), "theirs-only-91cd").await;
        let stage = Stage {
            world: &world,
            tier,
            ours: Party {
                home: &ours,
                seeded: ours_seeded,
            },
            theirs: Party {
                home: &theirs,
                seeded: theirs_seeded,
            },
            rules: rules(&world),
        };
        routes::attack(&stage).await;
        sql::attack(&stage).await;
        limits::hold(&stage).await;
        if tier != Tier::Dedicated {
            // Two tenants of this tier never meet on one connection: it is to one's own database.
            pooled::attack(&stage).await;
        }
    }
}

fn rules(world: &World) -> Rules {
    let mut rules = Rules::new([&world.package.manifest]);
    for id in crate::MODULES {
        if id != world.package.manifest.id.as_str() {
            rules.add(&id.parse().expect("a module of the test kit"), &[]);
        }
    }
    rules
}

impl Stage<'_> {
    /// The schema of the module's tables that hold a tenant's rows.
    fn schema(&self, home: &Home) -> String {
        home.1.schema(home.0, &self.world.package.manifest.id)
    }

    /// A superuser's session in a tenant's database.
    async fn admin(&self, home: &Home) -> tokio_postgres::Client {
        let database = home.1.database(home.0);
        let dsn = self.world.cell.superuser_dsn(&database);
        connect(&dsn).await.expect("connect as the administrator")
    }

    /// A session of the module's own login in a tenant's database.
    async fn thief(&self, home: &Home) -> tokio_postgres::Client {
        let database = home.1.database(home.0);
        let module = &self.world.package.manifest.id;
        let dsn = self.world.cell.module_dsn(module, &database);
        connect(&dsn).await.expect("connect as the module")
    }

    /// The module's tables of a tenant, unqualified.
    async fn tables(&self, home: &Home) -> Vec<String> {
        let sql = "select relname::text from pg_class
                    where relnamespace = to_regnamespace($1) and relkind in ('r', 'p') order by 1";
        let (admin, schema) = (self.admin(home).await, self.schema(home));
        let rows = admin.query(sql, &[&schema]).await;
        let rows = rows.expect("list the module's tables");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// A text that stands in a table's rows of this party and in nobody else's: its secret, or an id.
    async fn mark(&self, party: &Party<'_>, table: &str) -> String {
        let schema = self.schema(party.home);
        let sql = format!(
            "select mark from unnest($1::text[]) with ordinality m (mark, place)
              where exists (select from {schema}.{table} t where strpos(t::text, mark) > 0)
              order by place limit 1"
        );
        let mut marks = vec![&party.seeded.secret];
        marks.extend(&party.seeded.ids);
        let admin = self.admin(party.home).await;
        let row = admin.query_opt(&sql, &[&marks]).await.expect("look");
        let row = row.unwrap_or_else(|| unreachable!("nothing of the seed stands in {table}"));
        row.get(0)
    }

    /// Everything that a tenant has in the module's tables, in a few bytes.
    async fn fingerprint(&self, home: &Home) -> Vec<(String, i64, String)> {
        let admin = self.admin(home).await;
        let mut prints = Vec::new();
        for table in self.tables(home).await {
            let sql = format!(
                "select count(*), coalesce(md5(string_agg(t::text, '|' order by t::text)), '')
                   from {}.{table} t where tenant_id = $1",
                self.schema(home)
            );
            let row = admin.query_one(&sql, &[&home.0.number()]).await;
            let row = row.expect("read a table");
            prints.push((table, row.get(0), row.get(1)));
        }
        prints
    }
}

/// Begins a transaction, sealed with a proof of this tenant if the database accepts it.
async fn enter(client: &tokio_postgres::Client, caller: Caller<'_>, access: Access) -> bool {
    let proof = caller.context(access).proof;
    client.batch_execute("begin").await.expect("begin");
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&proof.claims, &proof.kid, &proof.mac];
    let entered = client
        .query_one("select waangu.enter($1, $2, $3)", &params)
        .await;
    if entered.is_err() {
        client
            .batch_execute("rollback; begin")
            .await
            .expect("begin again");
    }
    entered.is_ok()
}

fn is_refused(status: StatusCode) -> bool {
    status.is_client_error()
}

/// Another id of the same form: its last digits are others.
fn nobodys(id: &str) -> String {
    let kept = id.len().saturating_sub(8);
    let turned = |(place, letter): (usize, char)| match letter {
        '0'..='8' | 'a'..='e' if place >= kept => {
            char::from_u32(u32::from(letter).saturating_add(1)).unwrap_or(letter)
        }
        '9' if place >= kept => '0',
        'f' if place >= kept => 'a',
        other => other,
    };
    id.char_indices().map(turned).collect()
}
