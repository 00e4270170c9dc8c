//! What PostgreSQL gives every login and no privilege takes away. It stands here so that nobody takes
//! it for closed: each statement must succeed, and an entry that no longer does has to go.

use waangu_identity::proof::Access;

use super::{Stage, enter};
use crate::world::EVERYTHING;

/// The statement, and what limits the damage.
const LIMITS: &[(&str, &str)] = &[
    (
        "notify waangu_contract, 'x'",
        "no part of the platform trusts a notification: it wakes, and what woke looks for itself",
    ),
    (
        "listen waangu_contract",
        "nothing of a tenant's is ever notified; the pool ends listening with the transaction",
    ),
    (
        "lock table {table} in row exclusive mode",
        "stops only DDL; a stronger lock needs UPDATE or DELETE, and ends with the transaction",
    ),
    (
        "set local statement_timeout = 0",
        "the pool cancels the statement at the request's deadline and closes the connection",
    ),
    (
        "explain select * from {table} where tenant_id = {b}",
        "the estimate tells about how many rows there are; no route explains; own tables for who minds",
    ),
    (
        "select reltuples, pg_relation_size(oid) from pg_class where oid = '{table}'::regclass",
        "sizes of tables; in the shared tier of all tenants together",
    ),
    (
        "select random()",
        "what it draws tells what the connection's next tenant draws; secrets come from gen_random_uuid()",
    ),
    (
        "select nspname from pg_namespace",
        "numbers of the tenants that share a bucket database",
    ),
    (
        "alter role {login} set work_mem = '1MB'",
        "harms the module itself; undone at the control plane's next start, seen by the catalogue check",
    ),
    (
        "select pg_export_snapshot()",
        "another session may share the snapshot, under its own context",
    ),
];

pub(super) async fn hold(stage: &Stage<'_>) {
    let tables = stage.tables(stage.theirs.home).await;
    let table = tables.first().expect("a module has a table");
    let table = format!("{}.{table}", stage.schema(stage.theirs.home));
    let login = Access::Write.login(&stage.world.package.manifest.id);
    for (sql, _) in LIMITS {
        let thief = stage.thief(stage.theirs.home).await;
        let caller = stage.world.caller(stage.ours.home, EVERYTHING);
        enter(&thief, caller, Access::Write).await;
        let sql = sql
            .replace("{table}", &table)
            .replace("{login}", &login)
            .replace("{b}", &stage.theirs.home.0.number().to_string());
        let done = thief.batch_execute(&sql).await;
        assert!(
            done.is_ok(),
            "`{sql}` is no longer possible ({done:?}): take it off the list"
        );
    }
}
