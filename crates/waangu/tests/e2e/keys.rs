//! The gateway's keys are replaced while people work.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;
use waangu_identity::context::CONTEXT_HEADER;
use waangu_identity::proof::{Access, ProofClaims};
use waangu_identity::{KeyRing, RequestContext};
use waangu_kernel::{Clock as _, Placement, RequestId, SystemClock, TenantId, Tier, UserId};

use crate::support::{Folder, Platform, Session, Shop, db::in_database, until};

/// Short, so that a test sees the end; requests here take milliseconds.
const ARGS: &[&str] = &["--http-port", "0", "--key-grace", "4"];

/// Requests that go on until told to stop; every one has to be served.
struct Traffic {
    shops: Vec<Shop>,
    stop: AtomicBool,
    served: AtomicUsize,
}

impl Traffic {
    async fn of(platform: &Platform, slugs: &[&str]) -> Self {
        let mut shops = Vec::new();
        for slug in slugs {
            shops.push(Shop::open(platform, slug).await);
        }
        Self {
            shops,
            stop: AtomicBool::new(false),
            served: AtomicUsize::new(0),
        }
    }

    async fn flow(&self) {
        let workers = self.shops.iter().map(|shop| self.work(shop));
        futures_util::future::join_all(workers).await;
    }

    async fn work(&self, shop: &Shop) {
        let mut number = 0_u32;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let sku = format!("S-{number}");
            let body = json!({ "sku": sku, "name": sku });
            shop.post("/products", &body).await.expect(201);
            shop.get("/products?limit=5").await.expect(200);
            self.served.fetch_add(2, Ordering::Relaxed);
        }
    }

    /// Does something under traffic; says how many requests were served meanwhile.
    async fn during<T>(&self, work: impl Future<Output = T>) -> (T, usize) {
        self.stop.store(false, Ordering::Relaxed);
        let before = self.served.load(Ordering::Relaxed);
        let work = async {
            let done = work.await;
            self.stop.store(true, Ordering::Relaxed);
            done
        };
        let (done, ()) = tokio::join!(work, self.flow());
        (done, self.served.load(Ordering::Relaxed) - before)
    }
}

/// What the platform signs with, taken from its folder.
fn ring(platform: &Platform) -> KeyRing {
    let path = platform.folder.state().join("keys/ring.json");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    KeyRing::from_json(&fs::read(path).unwrap()).unwrap()
}

/// Kind, id and state of each key, as the command tells them.
async fn listed(platform: &Platform) -> Vec<[String; 3]> {
    let ran = platform.cli(&["key", "list", "--output", "json"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let list: Value = serde_json::from_str(&ran.stdout).unwrap();
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    let keys = list["items"].as_array().unwrap().iter();
    keys.map(|key| ["kind", "id", "state"].map(|name| text(key, name)))
        .collect()
}

/// The request context that a thief of keys would make.
fn forged(ring: &KeyRing, tenant: &Value) -> RequestContext {
    let id: TenantId = tenant["id"].as_str().unwrap().parse().unwrap();
    let placement = Placement {
        cell: tenant["placement"]["cell"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap(),
        tier: Tier::Shared,
        bucket: 0,
        epoch: 1,
    };
    let (actor, request) = (UserId::generate(), RequestId::generate());
    let expires = SystemClock.unix_seconds() + 50;
    let module = "inventory".parse().unwrap();
    let proof = ring.signing().unwrap().proof.prove(&ProofClaims {
        login: "waangu_inventory",
        tenant: id.number(),
        epoch: 1,
        expires,
        access: Access::Read,
        actor: &actor.to_string(),
        request: &request.to_string(),
    });
    RequestContext {
        module,
        request,
        tenant: id,
        slug: tenant["slug"].as_str().unwrap().parse().unwrap(),
        placement,
        heading: None,
        actor,
        permissions: vec!["inventory:product.read".parse().unwrap()],
        access: Access::Read,
        flags: waangu_kernel::entitlement::Values::new(),
        places: Vec::new(),
        expires,
        proof,
        visited: None,
    }
}

/// How many products the proof opens, with the module's own login.
async fn enter(platform: &Platform, context: &RequestContext) -> Result<i64, String> {
    let name = context.placement.cell.to_string();
    let cell = platform.ready.cells.iter().find(|cell| cell.id == name);
    let dsn = &cell.unwrap().module_dsns["inventory"];
    let session = Session::open(dsn).await;
    let proof = &context.proof;
    session.rows("begin", &[]).await;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&proof.claims, &proof.kid, &proof.mac];
    let entered = session.try_rows("select waangu.enter($1, $2, $3)", &values);
    match entered.await {
        Ok(_void) => Ok(session.number("select count(*) from product").await),
        Err(error) => Err(error.code().unwrap().code().to_owned()),
    }
}

/// Status and code of a module that is called past the gateway.
async fn call_module(platform: &Platform, jws: &str) -> (u16, Option<String>) {
    let text = fs::read_to_string(platform.folder.state().join("run/gateway.toml")).unwrap();
    let file: toml::Table = toml::from_str(&text).unwrap();
    let address = file["modules"]["inventory"].as_str().unwrap();
    let url = format!("http://{address}/products");
    let answer = platform
        .http()
        .get(&url)
        .header(CONTEXT_HEADER, jws)
        .send()
        .await;
    (
        answer.status,
        answer.json()["code"].as_str().map(str::to_owned),
    )
}

/// A secret that was replaced has to be gone from everything but memory.
fn assert_gone(platform: &Platform, ring: &KeyRing) {
    let document: Value = serde_json::from_slice(&ring.to_json().unwrap()).unwrap();
    let secrets: Vec<&str> = document["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["secret"].as_str().unwrap())
        .collect();
    let state = platform.folder.state();
    for folder in ["", "keys", "run", "log", "packages"] {
        for entry in fs::read_dir(state.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let Ok(bytes) = fs::read(&path) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            for secret in &secrets {
                assert!(!text.contains(secret), "{}", path.display());
            }
        }
    }
}

/// How many keys each database accepts.
async fn accepted(platform: &Platform) -> Vec<i64> {
    let databases = "select datname::text from pg_database
                      where datname ~ '^waangu(_t_|_schema_|$)' and datallowconn";
    let mut counts = Vec::new();
    for cell in &platform.ready.cells {
        let server = Session::open(&cell.superuser_dsn).await;
        for database in server.texts(databases).await {
            let place = Session::open(&in_database(&cell.superuser_dsn, &database)).await;
            let sql = "select count(*) from waangu.context_key";
            counts.push(place.number(sql).await);
        }
    }
    counts
}

/// A rotation that refuses requests is put off until the key has leaked; one that leaves the old key
/// anywhere is none.
#[tokio::test]
async fn keys_are_replaced_under_load_and_the_old_ones_open_nothing() {
    let platform = Platform::start(Folder::new(), ARGS).await;
    platform.tenant("shared", "shared").await;
    platform.tenant("own", "dedicated").await;
    let tenant = platform.operate("GET", "/tenants/shared", None).await;
    let tenant = tenant.expect(200);
    let old = ring(&platform);
    let before = listed(&platform).await;
    assert_eq!(before.len(), 2, "{before:?}");
    assert!(before.iter().all(|[_, _, state]| state == "current"));

    let traffic = Traffic::of(&platform, &["shared", "own"]).await;
    let (ran, served) = traffic.during(platform.cli(&["key", "rotate"])).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(served > 50, "{served} requests are no traffic");
    println!("{served} requests served during the rotation, none refused");

    let after = listed(&platform).await;
    let current: Vec<&str> = after.iter().map(|key| key[2].as_str()).collect();
    assert_eq!(current, ["current", "current"], "{after:?}");
    assert!(after.iter().all(|key| !before.contains(key)), "{after:?}");
    let new = ring(&platform);
    assert!(accepted(&platform).await.iter().all(|count| *count == 1));
    assert_gone(&platform, &old);

    // The new keys open, so that the old ones are refused for what they are.
    assert!(enter(&platform, &forged(&new, &tenant)).await.unwrap() > 0);
    let refused = enter(&platform, &forged(&old, &tenant)).await;
    assert_eq!(refused.unwrap_err(), "42501");
    let sign = |ring: &KeyRing| {
        let context = forged(&new, &tenant);
        ring.signing().unwrap().context.sign(context).unwrap()
    };
    assert_eq!(call_module(&platform, &sign(&new)).await, (200, None));
    let (status, code) = call_module(&platform, &sign(&old)).await;
    assert_eq!((status, code.as_deref()), (403, Some("context-refused")));

    // A database that is made now knows the new keys.
    platform.tenant("late", "dedicated").await;
    Shop::open(&platform, "late").await.sees(200, None).await;
    audited(&platform).await;
}

async fn audited(platform: &Platform) {
    let events = platform.operate("GET", "/audit?limit=500", None).await;
    let events = events.expect(200);
    let items = events["items"].as_array().unwrap();
    let count = |action: &str| {
        items
            .iter()
            .filter(|event| event["action"] == action)
            .count()
    };
    assert_eq!(count("key.rotate"), 1, "{events}");
    assert_eq!(count("key.promote"), 2, "{events}");
    assert_eq!(count("key.retire"), 2, "{events}");
}

/// A control plane that dies in the middle of a rotation must neither lock people out nor leave an old
/// key behind, and nobody should have to ask again.
#[tokio::test]
async fn a_rotation_survives_its_control_plane() {
    let mut platform = Platform::start(Folder::new(), ARGS).await;
    platform.tenant("shared", "shared").await;
    let old = ring(&platform);
    let traffic = Traffic::of(&platform, &["shared"]).await;
    let kill_often = async {
        let ran = platform.cli(&["key", "rotate", "--no-wait"]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        for pause in [0, 30, 150, 60, 10] {
            until("control runs", Duration::from_secs(10), async || {
                platform.control()
            })
            .await
            .signal(Signal::KILL);
            sleep(Duration::from_millis(pause)).await;
        }
        until("the rotation ends", Duration::from_mins(1), async || {
            rotated(&platform, &old).then_some(())
        })
        .await;
    };
    let ((), served) = traffic.during(kill_often).await;
    assert!(served > 50, "{served} requests are no traffic");
    println!("{served} requests served while the control plane was killed, none refused");

    // All of it at once, right after somebody asked.
    let old = ring(&platform);
    let ran = platform.cli(&["key", "rotate", "proof", "--no-wait"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    platform.kill_everything().await;
    platform.again(ARGS).await;
    let proof = |ring: &KeyRing| ring.signing().unwrap().proof.kid();
    let ended = async || {
        let new = ring(&platform);
        (new.keys().len() == 2 && proof(&new) > proof(&old)).then_some(())
    };
    until("the rotation ends", Duration::from_mins(1), ended).await;
    Shop::open(&platform, "shared").await.sees(200, None).await;
    assert!(accepted(&platform).await.iter().all(|count| *count == 1));
}

/// Whether nothing of an old ring is left.
fn rotated(platform: &Platform, old: &KeyRing) -> bool {
    let new = ring(platform);
    let old_ids: Vec<&str> = old.keys().iter().map(|key| key.id.as_str()).collect();
    new.keys().len() == 2
        && new
            .keys()
            .iter()
            .all(|key| !old_ids.contains(&key.id.as_str()))
}
