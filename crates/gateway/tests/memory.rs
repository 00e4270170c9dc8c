//! What a tenant costs in the gateway's memory. A program of its own: what other tests allocate would
//! be counted, too.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops where it stands"
)]

use std::collections::HashMap;

use waangu_gateway::{Limits, Snapshot};
use waangu_kernel::{Placement, TenantId, Tier, UserId};
use waangu_registry::{RouteChange, TenantRoute};

const TENANTS: i64 = 100_000;

/// Bytes for each tenant (issue: goal at 100,000 tenants).
const GOAL: u64 = 400;

/// As the registry tells it: everything a text of its own. Every tenth has limits of its own, every
/// hundredth a database of its own.
fn route(number: i64) -> TenantRoute {
    let own = (number % 10 == 0).then(|| [("users".to_owned(), 25.into())].into());
    let tier = if number % 100 == 0 {
        Tier::Dedicated
    } else {
        Tier::Shared
    };
    TenantRoute {
        id: TenantId::new(number).unwrap(),
        slug: format!("client-{number}").parse().unwrap(),
        active: true,
        parent: None,
        placement: Placement {
            cell: format!("eu-west-1{}", number % 4).parse().unwrap(),
            tier,
            bucket: 0,
            epoch: 1,
        },
        heading: None,
        modules: vec!["inventory".parse().unwrap(), "ledger".parse().unwrap()],
        grants: HashMap::from([(UserId::generate(), vec!["tenant-admin".parse().unwrap()])]),
        plan: Some("starter".parse().unwrap()),
        profile: Some("sme".parse().unwrap()),
        own,
    }
}

/// The resident set, in bytes (proc(5)).
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// A gateway that needs a kilobyte for each tenant needs a machine of its own for a large platform, and
/// a restart of it takes as long as reading all that.
#[test]
fn a_hundred_thousand_tenants_fit_into_forty_megabytes() {
    let snapshot = Snapshot::new(Limits::default());
    snapshot.replace(vec![RouteChange::Put(Box::new(route(TENANTS + 1)))]);
    let before = resident();
    if before == 0 {
        println!("skipped: this system does not tell a process's memory");
        return;
    }
    for first in (1..=TENANTS).step_by(1000) {
        let batch = (first..first + 1000).map(|number| RouteChange::Put(Box::new(route(number))));
        snapshot.apply(batch.collect());
    }
    let each = resident().saturating_sub(before) / TENANTS.unsigned_abs();
    println!("{each} bytes for each of {TENANTS} tenants");
    assert!(each <= GOAL, "{each} bytes for each tenant");
    drop(snapshot);
}
