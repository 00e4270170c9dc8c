//! `GET /metrics` of a module: what its pools are doing, in Prometheus text format 0.0.4. Reached on
//! the module's own address, never through the gateway (no route of a manifest leads here).

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use waangu_tenancy::CellStats;

use crate::Host;

/// Name, type, and where the number is.
type Metric = (&'static str, &'static str, fn(&CellStats) -> u64);

const METRICS: [Metric; 7] = [
    ("waangu_pool_connections_open", "gauge", |stats| {
        count(stats.open)
    }),
    ("waangu_pool_connections_in_use", "gauge", |stats| {
        count(stats.in_use)
    }),
    ("waangu_pool_requests_waiting", "gauge", |stats| {
        count(stats.waiting)
    }),
    ("waangu_pool_requests_waited_total", "counter", |stats| {
        stats.waited
    }),
    ("waangu_pool_requests_timed_out_total", "counter", |stats| {
        stats.timed_out
    }),
    ("waangu_pool_connections_opened_total", "counter", |stats| {
        stats.opened
    }),
    (
        "waangu_pool_connections_tainted_total",
        "counter",
        |stats| stats.tainted,
    ),
];

/// Answers the metrics.
pub(crate) async fn show(State(host): State<Host>) -> impl IntoResponse {
    let cells = host.pools.stats();
    let mut text = String::new();
    for (name, kind, number) in METRICS {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "# TYPE {name} {kind}");
        for (cell, stats) in &cells {
            let _infallible = writeln!(text, "{name}{{cell=\"{cell}\"}} {}", number(stats));
        }
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
