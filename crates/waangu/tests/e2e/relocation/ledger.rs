//! Somebody who writes down what was acknowledged, and compares it with what is there.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::support::{Platform, Shop};

/// Writers at a time.
const WRITERS: usize = 4;

/// The least time between two products of one writer: all of them stay within a tenant's share of requests,
/// however fast the machine is.
const TURN: Duration = Duration::from_millis(25);

pub(super) struct Ledger {
    shops: Vec<Shop>,
    stop: AtomicBool,
    next: AtomicUsize,
    /// Each acknowledged product, with how often it was seen.
    made: Mutex<BTreeMap<String, u32>>,
    slowest: Mutex<Duration>,
}

impl Ledger {
    pub(super) async fn open(platform: &Platform, slug: &str) -> Self {
        let mut shops = Vec::new();
        for _writer in 0..WRITERS {
            shops.push(Shop::open(platform, slug).await);
        }
        shops[0].sees(200, None).await;
        Self {
            shops,
            stop: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            made: Mutex::default(),
            slowest: Mutex::default(),
        }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.made.lock().unwrap().len()
    }

    /// Writes so many.
    pub(super) async fn write(&self, number: usize) {
        for _one in 0..number {
            self.one(&self.shops[0]).await;
        }
    }

    /// Reads and writes as long as `work` goes on; every request has to succeed.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        self.stop.store(false, Ordering::Relaxed);
        let work = async {
            let done = work.await;
            self.stop.store(true, Ordering::Relaxed);
            done
        };
        let writers = self.shops.iter().map(async |shop| {
            let mut turns = interval(TURN);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !self.stop.load(Ordering::Relaxed) {
                turns.tick().await;
                self.one(shop).await;
            }
        });
        let (done, _) = tokio::join!(work, futures_util::future::join_all(writers));
        let slowest = self.slowest.lock().unwrap();
        println!(
            "{} products, slowest request {slowest:?}",
            self.acknowledged()
        );
        done
    }

    async fn one(&self, shop: &Shop) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let sku = format!("L-{number:06}");
        let begun = Instant::now();
        let body = json!({ "sku": sku, "name": sku });
        shop.post("/products", &body).await.expect(201);
        shop.get("/products?limit=3").await.expect(200);
        let took = begun.elapsed();
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = took.max(*slowest);
        self.made.lock().unwrap().insert(sku, 0);
    }

    /// Everything that was acknowledged is there, once, and nothing else.
    pub(super) async fn check(&self) {
        let mut seen = self.made.lock().unwrap().clone();
        let mut path = "/products?limit=200".to_owned();
        loop {
            let page = self.shops[0].get(&path).await.expect(200);
            for item in page["items"].as_array().unwrap() {
                let sku = item["sku"].as_str().unwrap();
                *seen.entry(sku.to_owned()).or_insert(100) += 1;
            }
            match page["next"].as_str() {
                Some(next) => path = format!("/products?limit=200&after={next}"),
                None => break,
            }
        }
        let wrong: Vec<_> = seen.iter().filter(|(_, times)| **times != 1).collect();
        assert!(
            wrong.is_empty(),
            "lost (0), doubled (2), unknown (101): {wrong:?}"
        );
    }
}
