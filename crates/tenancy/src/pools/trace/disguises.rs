//! Disguised commands, judged by PostgreSQL itself.
//!
//! A command is hidden behind comments, quotes and white space; what `leaves_none` lets pass is sent as a
//! pool would send it, and a superuser looks at what was left. Always the same disguises.

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio_postgres::Client;
use waangu_testkit::{cell, connect};

use super::leaves_none;

/// How many are tried.
const TRIED: usize = 20_000;

/// How many are under way at once.
const AT_ONCE: usize = 200;

/// What a statement of the given number would leave.
fn planted(number: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        Just(format!("prepare trace_{number} as select 2")),
        Just(format!("listen trace_{number}")),
        Just(format!("set trace.is_{number} = 'left'")),
        Just(format!(
            "declare trace_{number} cursor with hold for select 2"
        )),
    ]
}

/// A comment, and what confuses its end.
fn comment() -> impl Strategy<Value = String> {
    let inner = prop_oneof![
        3 => Just("/".to_owned()),
        2 => Just("*".to_owned()),
        2 => Just("select 1 ".to_owned()),
        1 => Just("--".to_owned()),
        1 => Just("'".to_owned()),
        1 => Just("\n".to_owned()),
    ];
    let wrap = |parts: Vec<String>| format!("/*{}*/", parts.concat());
    inner
        .prop_recursive(2, 8, 3, move |part| {
            prop::collection::vec(part, 0..3).prop_map(wrap)
        })
        .prop_map(|inside| format!("/*{inside}*/"))
}

/// What stands before a command.
fn disguise() -> impl Strategy<Value = String> {
    let fixed = |text: &'static str| Just(text.to_owned());
    let part = prop_oneof![
        6 => comment(),
        3 => fixed("*/ "),
        3 => fixed("select 1 "),
        1 => fixed("with a as (select 1) "),
        1 => fixed("rollback to "),
        1 => fixed("/*"),
        1 => fixed("-- select 1\n"),
        1 => fixed("-- select 1\r"),
        1 => fixed("--"),
        1 => fixed(" \t\x0c\x0b"),
        1 => fixed("\u{a0}"),
        1 => fixed("; "),
        1 => fixed("select '"),
        1 => fixed("select E'\\' "),
        1 => fixed("select $a$ "),
        1 => fixed("select $$ "),
        1 => fixed("$$"),
        1 => fixed("'"),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

/// What `leaves_none` was before a review found `/*/*/select 1 */ */ prepare …`: it took the first `*/`
/// for the end of a comment that holds no other.
fn once_let_pass(sql: &str) -> bool {
    let mut sql = sql.trim_start();
    while let Some((comment, rest)) = sql.strip_prefix("/*").and_then(|c| c.split_once("*/")) {
        if comment.contains("/*") {
            return false;
        }
        sql = rest.trim_start();
    }
    sql.starts_with("select ")
}

/// Sends statements as a pool does, one command in each message, and tells whose traces are there.
async fn left(client: &Client, tried: &[(usize, String)]) -> Vec<usize> {
    for some in tried.chunks(AT_ONCE) {
        // Most are no SQL at all.
        drop(join_all(some.iter().map(|(_, sql)| client.execute(sql, &[]))).await);
    }
    let numbers: Vec<i64> = tried
        .iter()
        .map(|(n, _)| i64::try_from(*n).expect("few"))
        .collect();
    let sql = "select n from unnest($1::bigint[]) n
                where 'trace_' || n in (select name from pg_prepared_statements
                                        union all select name from pg_cursors
                                        union all select * from pg_listening_channels())
                   or current_setting('trace.is_' || n, true) = 'left'";
    let rows = client
        .query(sql, &[&numbers])
        .await
        .expect("look for traces");
    let number =
        |row: &tokio_postgres::Row| usize::try_from(row.get::<_, i64>(0)).expect("positive");
    rows.iter().map(number).collect()
}

/// A command that passes for a query would wait in the session for the next tenant.
#[tokio::test]
async fn no_disguise_hides_a_command() {
    let mut runner = TestRunner::deterministic();
    let drawn = (0..TRIED).map(|number| {
        let sql = (disguise(), planted(number)).prop_map(|(before, command)| before + &command);
        let sql = sql.new_tree(&mut runner).expect("a statement").current();
        (number, sql)
    });
    let passes: Vec<_> = drawn
        .filter(|(_, sql)| leaves_none(sql) || once_let_pass(sql))
        .collect();
    let cell = cell().await;
    let client = connect(&cell.superuser_dsn("postgres"))
        .await
        .expect("connect");
    let left = left(&client, &passes).await;
    let hidden = passes.iter().filter(|(number, _)| left.contains(number));
    let (missed, known): (Vec<_>, Vec<_>) = hidden.partition(|(_, sql)| leaves_none(sql));
    assert!(
        missed.is_empty(),
        "PostgreSQL runs a command here: {missed:#?}"
    );
    assert!(
        !known.is_empty(),
        "even the hole that is known was not found"
    );
}
