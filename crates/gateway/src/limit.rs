//! Shares and caps: overload is refused before memory grows (architecture §9).
//!
//! Invariants: a refused request has cost nothing upstream; a tenant can use up its own share only;
//! what is counted as running is counted down when its answer has been streamed or dropped, whichever
//! comes first; tables keyed by client addresses are bounded.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use quick_cache::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use waangu_kernel::entitlement::REQUESTS_PER_MINUTE;
use waangu_kernel::fault;

use crate::config::{Limits, Rate};
use crate::problem::Refusal;

/// Client addresses that are remembered at once.
const ADDRESSES: usize = 65_536;

/// A rate that is being used.
struct Meter(DefaultDirectRateLimiter);

impl Meter {
    fn new(rate: Rate) -> Self {
        Self::over(Quota::per_second(rate.per_second).allow_burst(rate.burst))
    }

    fn over(quota: Quota) -> Self {
        Self(RateLimiter::direct(quota))
    }

    /// Uses one; otherwise says how long to wait.
    fn take(&self) -> Result<(), std::time::Duration> {
        self.0.check().map_err(|early| {
            let now = governor::clock::DefaultClock::default().now();
            early.wait_time_from(now)
        })
    }
}

/// One tenant's part of the gateway.
pub(crate) struct Share {
    rate: Meter,
    running: Arc<Semaphore>,
    /// The tenant's own limit, made when it first has one.
    minute: Mutex<Option<Box<Minute>>>,
    /// What has not been reported yet.
    requests: AtomicU64,
    database_us: AtomicU64,
}

/// A tenant's own limit of requests, by the number that it was made for.
struct Minute {
    limit: u64,
    meter: Meter,
}

impl Share {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            rate: Meter::new(limits.tenant_rate),
            running: Arc::new(Semaphore::new(limits.tenant_in_flight)),
            minute: Mutex::new(None),
            requests: AtomicU64::new(0),
            database_us: AtomicU64::new(0),
        }
    }

    /// Counts what the tenant has used.
    pub(crate) fn count(&self, requests: u64, database_us: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.database_us.fetch_add(database_us, Ordering::Relaxed);
    }

    /// Requests and microseconds of database time since the last call.
    pub(crate) fn take_counts(&self) -> (u64, u64) {
        let requests = self.requests.swap(0, Ordering::Relaxed);
        (requests, self.database_us.swap(0, Ordering::Relaxed))
    }

    /// Enters one request of the tenant, which may have so many in a minute.
    pub(crate) fn enter(&self, per_minute: Option<u64>) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = Arc::clone(&self.running)
            .try_acquire_owned()
            .map_err(|_full| {
                let fault = fault::RATE_LIMITED.fault("this tenant has too many requests running");
                Refusal::after(fault, 1)
            })?;
        self.rate.take().map_err(|wait| {
            let fault = fault::RATE_LIMITED.fault("this tenant sends more requests than its share");
            Refusal::after(fault, whole_seconds(wait))
        })?;
        if let Some(limit) = per_minute {
            self.take_of_minute(limit)?;
        }
        Ok(permit)
    }

    fn take_of_minute(&self, limit: u64) -> Result<(), Refusal> {
        let refused = |wait| {
            let fault = fault::RATE_LIMITED.fault(format!(
                "this tenant has used up its requests (limit `{REQUESTS_PER_MINUTE}`: {limit})"
            ));
            Refusal::after(fault, wait)
        };
        let Some(rate) = NonZeroU32::new(u32::try_from(limit).unwrap_or(u32::MAX)) else {
            return Err(refused(60));
        };
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        // A new number begins a new bucket, so that more is to be had at once.
        let minute = match minute.take() {
            Some(known) if known.limit == limit => minute.insert(known),
            _ => minute.insert(Box::new(Minute {
                limit,
                meter: Meter::over(Quota::per_minute(rate)),
            })),
        };
        minute
            .meter
            .take()
            .map_err(|wait| refused(whole_seconds(wait)))
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({} free)", self.running.available_permits())
    }
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Gate {
    running: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            running: Arc::new(Semaphore::new(limits.in_flight)),
        }
    }

    /// Enters one request.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.running)
            .try_acquire_owned()
            .map_err(|_full| {
                let fault = fault::OVERLOADED.fault("the gateway has too many requests running");
                Refusal::after(fault, 1)
            })
    }
}

/// A client address, an IPv6 one cut to what one customer of a provider usually gets (/56).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 72 << 72)),
        })
    }
}

/// A rate for each client address.
pub(crate) struct PerAddress {
    rate: Rate,
    meters: Cache<Origin, Arc<Meter>>,
}

impl PerAddress {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            meters: Cache::new(ADDRESSES),
        }
    }

    /// Uses one of the address's share.
    pub(crate) fn take(&self, ip: IpAddr) -> Result<(), Refusal> {
        let made = self.meters.get_or_insert_with(&Origin::from(ip), || {
            Ok::<_, Infallible>(Arc::new(Meter::new(self.rate)))
        });
        let Ok(meter) = made;
        meter.take().map_err(|wait| {
            let fault = fault::RATE_LIMITED.fault("this address sends too many requests");
            Refusal::after(fault, whole_seconds(wait))
        })
    }
}

impl fmt::Debug for PerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PerAddress({} known)", self.meters.len())
    }
}

/// Failures of each client address: free until the share is used up, then everything costly waits.
#[derive(Debug)]
pub(crate) struct Failures {
    rate: Rate,
    by_origin: Cache<Origin, Arc<Record>>,
}

struct Record {
    meter: Meter,
    blocked: Mutex<Option<Instant>>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Record")
    }
}

impl Failures {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            by_origin: Cache::new(ADDRESSES),
        }
    }

    /// Refuses an address that has failed too often.
    pub(crate) fn check(&self, ip: IpAddr) -> Result<(), Refusal> {
        let Some(record) = self.by_origin.get(&Origin::from(ip)) else {
            return Ok(());
        };
        let blocked = *record
            .blocked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match blocked.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(wait) if !wait.is_zero() => {
                let fault = fault::RATE_LIMITED
                    .fault("this address has sent too many tokens that are not valid");
                Err(Refusal::after(fault, whole_seconds(wait)))
            }
            _ => Ok(()),
        }
    }

    /// Counts one failure.
    pub(crate) fn count(&self, ip: IpAddr) {
        let made = self.by_origin.get_or_insert_with(&Origin::from(ip), || {
            Ok::<_, Infallible>(Arc::new(Record {
                meter: Meter::new(self.rate),
                blocked: Mutex::new(None),
            }))
        });
        let Ok(record) = made;
        if let Err(wait) = record.meter.take() {
            *record
                .blocked
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + wait);
        }
    }
}

/// Seconds for `Retry-After`, rounded up.
fn whole_seconds(wait: std::time::Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a brake on failures, each made-up token costs the gateway a signature check.
    #[test]
    fn an_address_that_keeps_failing_is_refused_and_others_are_not() {
        let failures = Failures::new(Rate::new(1, 3));
        let bad: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..3 {
            failures.check(bad).unwrap();
            failures.count(bad);
        }
        failures.check(bad).unwrap();
        failures.count(bad);
        let refusal = failures.check(bad).unwrap_err();
        assert_eq!(refusal.fault.code(), "rate-limited");
        assert_eq!(refusal.retry_after, Some(1));
        failures.check("192.0.2.2".parse().unwrap()).unwrap();
    }

    /// Somebody with one IPv6 line has 2^64 addresses and must still be one origin.
    #[test]
    fn one_ipv6_line_is_one_origin() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:ff:1::"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:2:2::1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
    }

    /// A tenant above its share must hear when to come back, and its permits must return.
    #[test]
    fn a_share_is_bounded_and_returns() {
        let limits = Limits {
            tenant_in_flight: 1,
            tenant_rate: Rate::new(1, 2),
            ..Limits::default()
        };
        let share = Share::new(&limits);
        let held = share.enter(None).unwrap();
        assert_eq!(share.enter(None).unwrap_err().fault.code(), "rate-limited");
        drop(held);
        drop(share.enter(None).unwrap());
        let refusal = share.enter(None).unwrap_err();
        assert_eq!(refusal.fault.code(), "rate-limited");
        assert_eq!(refusal.retry_after, Some(1));
    }

    /// A client on a small plan must not get more than it pays for, must hear when to come back, and
    /// has more at once when its plan grows.
    #[test]
    fn a_tenants_own_limit_holds_it_and_nobody_else() {
        let share = Share::new(&Limits::default());
        let other = Share::new(&Limits::default());
        for _ in 0..30 {
            drop(share.enter(Some(30)).unwrap());
        }
        let refusal = share.enter(Some(30)).unwrap_err();
        assert_eq!(refusal.fault.code(), "rate-limited");
        assert_eq!(refusal.retry_after, Some(2));
        drop(other.enter(Some(30)).unwrap());
        drop(share.enter(Some(60)).unwrap());
        drop(share.enter(None).unwrap());
        assert_eq!(share.enter(Some(0)).unwrap_err().retry_after, Some(60));
    }
}
