//! Names that hide others, other sessions, and the machine below.

use super::Leak::{Counts, Fails, Says, Succeeds};
use super::{Attack, COUNT, attack};

pub(super) const ATTACKS: &[Attack] = &[
    // Names that hide others, and things left behind.
    attack(
        "a temporary table in a table's place",
        Succeeds,
        "grant temporary on database {database} to {login}",
        &["create temporary table {name} (id bigint)"],
    ),
    attack(
        "a temporary view in a table's place",
        Succeeds,
        "grant temporary on database {database} to public",
        &["create temporary view {name} as select 1 as id"],
    ),
    attack(
        "an operator found first",
        Succeeds,
        "grant create on database {database} to {login}",
        &[
            "create schema sandbox",
            "create function sandbox.yes(bigint, bigint) returns boolean
             language sql return true",
            "create operator sandbox.= (leftarg = bigint, rightarg =
             bigint, function = sandbox.yes)",
        ],
    ),
    attack(
        "a function in the module's schema",
        Succeeds,
        "grant create on schema {schema} to {login}",
        &["create function {schema}.now() returns timestamptz language
             sql return null::timestamptz"],
    ),
    attack(
        "a function in the schema public",
        Succeeds,
        "grant usage, create on schema public to {login}",
        &["create function public.f() returns bigint language sql return 1"],
    ),
    attack(
        "a trigger on a table",
        Succeeds,
        "grant trigger on {table} to {login}",
        &[
            "create trigger t before update on {table} for each row execute
             function suppress_redundant_updates_trigger()",
        ],
    ),
    attack(
        "a policy of one's own",
        Counts,
        "alter table {table} owner to {login}",
        &["create policy mine on {table} using (true)", COUNT],
    ),
    attack(
        "a large object",
        Succeeds,
        "grant execute on function lo_create(oid) to {login}",
        &["select lo_create(0)"],
    ),
    attack(
        "a large object from bytes",
        Succeeds,
        "grant execute on function lo_from_bytea(oid, bytea) to waangu_module",
        &["select lo_from_bytea(0, 'x')"],
    ),
    // A query that changes the session, which no pool can tell from another.
    attack(
        "a setting by set_config",
        Succeeds,
        "grant execute on function set_config(text, text, boolean) to public",
        &["select set_config('jit_above_cost', '0', false)"],
    ),
    attack(
        "a setting by way of pg_settings",
        Succeeds,
        "grant execute on function set_config(text, text, boolean) to {login};
             grant update on pg_settings to {login}",
        &["update pg_settings set setting = '0' where name = 'jit_above_cost'"],
    ),
    attack(
        "a setting from within a query in a text",
        Succeeds,
        "grant execute on function set_config(text, text, boolean) to waangu_module",
        &["select query_to_xml('select set_config(''jit'', ''on'', false)', true, false, '')"],
    ),
    attack(
        "random() sown",
        Succeeds,
        "grant execute on function setseed(double precision) to {login}",
        &["select setseed(0.5)"],
    ),
    // Other sessions.
    attack(
        "statements in pg_stat_activity",
        Says,
        "grant select on pg_stat_activity to {login}; grant execute on
             function pg_stat_get_activity(integer) to {login}",
        &["select string_agg(query, ' ') from pg_stat_activity"],
    ),
    attack(
        "statements by process",
        Says,
        "grant execute on function
             pg_stat_get_backend_activity(integer) to {login}",
        &[
            "select string_agg(pg_stat_get_backend_activity(id), ' ') from
             pg_stat_get_backend_idset() id",
        ],
    ),
    attack(
        "who works, in pg_locks",
        Succeeds,
        "grant select on pg_locks to {login}; grant execute on function
             pg_lock_status() to {login}",
        &["select objid from pg_locks where locktype = 'advisory'"],
    ),
    attack(
        "another session cancelled",
        Succeeds,
        "grant execute on function pg_cancel_backend(integer) to {login}",
        &["select pg_cancel_backend({pid})"],
    ),
    attack(
        "another session ended",
        Succeeds,
        "grant execute on function pg_terminate_backend(integer,
             bigint) to {login}",
        &["select pg_terminate_backend({pid})"],
    ),
    attack(
        "another tenant frozen",
        Succeeds,
        "grant execute on function pg_advisory_xact_lock(bigint) to {login}",
        &["select pg_advisory_xact_lock({b})"],
    ),
    attack(
        "another tenant frozen for good",
        Succeeds,
        "grant execute on function pg_try_advisory_lock(bigint) to public",
        &["select pg_try_advisory_lock({b})"],
    ),
    attack(
        "a message to the platform",
        Succeeds,
        "grant execute on function pg_notify(text, text) to {login}",
        &["select pg_notify('waangu_change', 'x')"],
    ),
    attack(
        "a message to replicas",
        Succeeds,
        "grant execute on function pg_logical_emit_message(boolean,
             text, text) to {login}",
        &["select pg_logical_emit_message(false, 'waangu', 'x')"],
    ),
    attack(
        "the whole log by replication",
        Fails("55000"),
        "alter role {login} replication",
        &["select pg_create_logical_replication_slot('peep', 'test_decoding')"],
    )
    .needing("current_setting('wal_level') <> 'logical'"),
    // The machine below.
    attack(
        "COPY TO PROGRAM",
        Succeeds,
        "grant pg_execute_server_program to {login}",
        &["copy (select 1) to program 'cat > /dev/null'"],
    ),
    attack(
        "COPY TO a file",
        Succeeds,
        "grant pg_write_server_files to {login}",
        &["copy (select 1) to '/dev/null'"],
    ),
    attack(
        "a file read",
        Succeeds,
        "grant execute on function pg_read_file(text) to {login}",
        &["select pg_read_file('PG_VERSION')"],
    ),
    attack(
        "a folder listed",
        Succeeds,
        "grant execute on function pg_ls_dir(text) to public",
        &["select pg_ls_dir('.')"],
    ),
    attack(
        "triggers and keys switched off",
        Succeeds,
        "grant set on parameter session_replication_role to {login}",
        &["set session_replication_role = replica"],
    ),
    attack(
        "an extension",
        Succeeds,
        "grant create on database {database} to {login}",
        &[
            "create schema sandbox",
            "create extension citext schema sandbox",
        ],
    )
    .needing("exists (select from pg_available_extensions where name = 'citext')"),
    attack(
        "a way out by dblink",
        Succeeds,
        "create extension dblink schema {schema}",
        &["select '{schema}.dblink_connect(text)'::regprocedure"],
    )
    .needing("exists (select from pg_available_extensions where name = 'dblink')"),
];
