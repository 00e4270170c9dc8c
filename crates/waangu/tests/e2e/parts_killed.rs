//! One process dies alone.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::process::Process;
use crate::support::{Answer, Folder, Platform, Shop, until};

/// No answer may take longer, whatever has died.
const LONGEST: Duration = Duration::from_secs(10);

/// Service has to be back by itself so soon.
const BACK: Duration = Duration::from_secs(8);

/// A tenant whose rows are watched: what was acknowledged has to be there, and nobody else's.
struct Watched {
    shop: Shop,
    slug: &'static str,
    acknowledged: Vec<String>,
    uncertain: Vec<String>,
    number: usize,
}

impl Watched {
    async fn new(platform: &Platform, slug: &'static str) -> Self {
        Self {
            shop: Shop::open(platform, slug).await,
            slug,
            acknowledged: Vec::new(),
            uncertain: Vec::new(),
            number: 0,
        }
    }

    /// Writes a product and reads the list; says whether both were served.
    async fn work(&mut self) -> bool {
        self.number += 1;
        let sku = format!("{}-{}", self.slug, self.number);
        let begun = Instant::now();
        let body = json!({ "sku": sku, "name": sku });
        let written = self.shop.try_post("/products", &body).await;
        let wrote = self.served(&written, 201);
        if wrote {
            self.acknowledged.push(sku);
        } else {
            // It may have been done all the same, when only its answer was lost.
            self.uncertain.push(sku);
        }
        let read = self.read().await;
        let took = begun.elapsed();
        assert!(
            took < LONGEST * 2,
            "{}: two requests took {took:?}",
            self.slug
        );
        wrote && read
    }

    /// Reads all pages of the list; says whether all were served.
    async fn read(&self) -> bool {
        let mut skus: Vec<String> = Vec::new();
        loop {
            let after = skus.last().map(String::as_str).unwrap_or_default();
            let path = format!("/products?limit=200&after={after}");
            let listed = self.shop.attempt(&path).await;
            if !self.served(&listed, 200) {
                return false;
            }
            let page = listed.unwrap().json();
            let items = page["items"].as_array().unwrap().iter();
            skus.extend(items.map(|item| item["sku"].as_str().unwrap().to_owned()));
            if page["next"].is_null() {
                break;
            }
        }
        self.check(&skus);
        true
    }

    /// An answer, or one that says to come again, or a connection that broke with the gateway.
    fn served(&self, answer: &Result<Answer, reqwest::Error>, status: u16) -> bool {
        match answer {
            Ok(answer) if answer.status == status => true,
            Ok(answer) => {
                let (status, code, _) = answer.problem();
                assert!(
                    [502, 503].contains(&status),
                    "{}: {}",
                    self.slug,
                    answer.text
                );
                println!("{}: {status} {code}", self.slug);
                false
            }
            Err(error) => {
                assert!(!error.is_timeout(), "{}: {error:?}", self.slug);
                false
            }
        }
    }

    fn check(&self, skus: &[String]) {
        for sku in &self.acknowledged {
            assert!(skus.contains(sku), "{sku} is lost: {skus:?}");
        }
        for sku in skus {
            let own = self.acknowledged.iter().chain(&self.uncertain);
            assert!(
                own.into_iter().any(|known| known == sku),
                "{sku} in {}",
                self.slug
            );
        }
    }
}

/// Kills a process, works on, and returns when two tries in a row were served by its successor.
async fn kill_and_work(
    name: &str,
    victim: Process,
    successor: impl Fn() -> Option<Process>,
    tenants: &mut [Watched],
) {
    victim.signal(Signal::KILL);
    let begun = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 2 {
        let mut served = true;
        for tenant in &mut *tenants {
            served &= tenant.work().await;
        }
        let replaced = successor().is_some_and(|now| now != victim);
        in_a_row = if served && replaced { in_a_row + 1 } else { 0 };
        assert!(begun.elapsed() < BACK, "{name} is not back within {BACK:?}");
        sleep(Duration::from_millis(50)).await;
    }
    println!("{name}: back after {:?}", begun.elapsed());
}

async fn platform_with_three() -> (Platform, Vec<Watched>) {
    let platform = Platform::start(Folder::new(), &["--http-port", "0"]).await;
    let mut tenants = Vec::new();
    for (slug, tier) in [
        ("alone", "shared"),
        ("apart", "schema"),
        ("away", "dedicated"),
    ] {
        platform.tenant(slug, tier).await;
        tenants.push(Watched::new(&platform, slug).await);
    }
    (platform, tenants)
}

/// A crash of one process is a hiccup for people at the till, not an outage that somebody must be
/// called for; and never somebody else's rows.
#[tokio::test]
async fn a_process_that_dies_comes_back_by_itself() {
    let (platform, mut tenants) = platform_with_three().await;
    let limit = Duration::from_secs(5);
    let find = async || platform.inventory();
    let module = until("the module runs", limit, find).await;
    kill_and_work("inventory", module, || platform.inventory(), &mut tenants).await;
    let gateway = platform.gateway().unwrap();
    kill_and_work("gateway", gateway, || platform.gateway(), &mut tenants).await;
    let control = platform.control().unwrap();
    kill_and_work("control", control, || platform.control(), &mut tenants).await;
    platform.operate("GET", "/tenants", None).await.expect(200);
    // Its tenants, and the control database; and the other one.
    for cell in [0, 1] {
        let server = platform.postgres(cell).unwrap();
        let name = format!("postgres {cell}");
        kill_and_work(&name, server, || platform.postgres(cell), &mut tenants).await;
    }
    until("the admin API is back", BACK, async || {
        let answer = platform.operate("GET", "/tenants", None).await;
        (answer.status == 200).then_some(())
    })
    .await;
    platform.tenant("later", "dedicated").await;
    Shop::open(&platform, "later").await.product("FIRST").await;
}

/// One cell's death is nothing to the tenants of the other: that is what cells are for. The second cell
/// has no tenants of the first and not the control database.
#[tokio::test]
async fn the_death_of_one_cell_is_nothing_to_the_other() {
    let platform = Platform::start(Folder::new(), &["--http-port", "0"]).await;
    let french = json!({ "slug": "paris", "name": "Paris", "country": "FR", "tier": "shared" });
    platform.change("POST", "/tenants", Some(&french)).await;
    platform.user("paris", "root", &["tenant-admin"]).await;
    platform.tenant("dakar", "shared").await;
    let mut paris = Watched::new(&platform, "paris").await;
    let mut dakar = Watched::new(&platform, "dakar").await;
    assert!(paris.work().await && dakar.work().await);
    let dakars = platform
        .ready
        .cells
        .iter()
        .position(|cell| cell.id == "sn-dakar-a");
    let server = platform.postgres(dakars.unwrap()).unwrap();
    server.signal(Signal::KILL);
    let begun = Instant::now();
    let mut missed = 0;
    loop {
        assert!(paris.work().await, "the other cell's death is felt");
        if dakar.work().await {
            if begun.elapsed() > Duration::from_secs(1) {
                break;
            }
        } else {
            missed += 1;
        }
        assert!(begun.elapsed() < BACK, "not back within {BACK:?}");
    }
    println!("{missed} requests were told to come again");
}

/// A server whose first restart fails, because somebody took its port just then, is not given up: the
/// night shift would find a platform that only a human can bring back.
#[tokio::test]
async fn a_database_is_started_until_it_runs() {
    let platform = Platform::start(Folder::new(), &["--http-port", "0"]).await;
    platform.tenant("patient", "shared").await;
    let shop = Shop::open(&platform, "patient").await;
    let cell = platform
        .ready
        .cells
        .iter()
        .position(|cell| cell.id == "sn-dakar-a")
        .unwrap();
    let server = platform.postgres(cell).unwrap();
    let (_, port) = server.command.trim().rsplit_once("-p ").unwrap();
    let address = format!("127.0.0.1:{port}");
    server.signal(Signal::KILL);
    let taken = until("its port is free", Duration::from_secs(3), async || {
        TcpListener::bind(&address).ok()
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    let meanwhile = shop.get("/products").await;
    assert_eq!(meanwhile.status, 503, "{}", meanwhile.text);
    drop(taken);
    until("it serves again", BACK, async || {
        (shop.get("/products").await.status == 200).then_some(())
    })
    .await;
}
