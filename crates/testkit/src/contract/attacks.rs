//! The SQL attacks, as data: what is taken away, what is tried, and what a success looks like.
//!
//! The attacker is the module's own login, in the victim's database, inside a transaction that the
//! attacker's own tenant has entered – or, in the dedicated tier, could not enter.

/// What a success looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leak {
    /// The last statement counts something.
    Counts,
    /// Every statement is carried out.
    Succeeds,
    /// The victim's secret stands in an answer or an error.
    Says,
    /// It fails in a way that tells that the victim's row is there.
    Fails(&'static str),
}

/// One attack. In braces stand names that are filled in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// Takes the defence away.
    pub(super) weaken: &'static str,
    /// Takes back what the catalogue check's mends leave.
    pub(super) restore: &'static str,
    /// A condition without which the attack makes no sense on this server.
    pub(super) needs: &'static str,
    pub(super) script: &'static [&'static str],
    pub(super) leak: Leak,
    /// On every table, not on one of them.
    pub(super) everywhere: bool,
    /// With a proof for reading.
    pub(super) reads: bool,
    /// After going back to a savepoint from before `enter`, which undoes its settings.
    pub(super) savepoint: bool,
}

const fn attack(
    name: &'static str,
    leak: Leak,
    weaken: &'static str,
    script: &'static [&'static str],
) -> Attack {
    Attack {
        name,
        weaken,
        restore: "",
        needs: "true",
        script,
        leak,
        everywhere: false,
        reads: false,
        savepoint: false,
    }
}

const NO_POLICIES: &str = "alter table {table} disable row level security";
const BARE_SETTING: &str = "alter policy tenant on {table}
    using (tenant_id = nullif(current_setting('app.current_tenant', true), '')::bigint)";
/// Two tenants write in one database.
const TOGETHER: &str = "'{database}' !~ '^waangu_t_'";
const COUNT: &str = "select count(*) from {table} where tenant_id = {b}";

use Leak::{Counts, Fails, Says, Succeeds};

/// All of them.
pub(super) const ATTACKS: &[Attack] = &[
    // Forgotten conditions and forged contexts.
    Attack {
        everywhere: true,
        ..attack("a forgotten WHERE", Counts, NO_POLICIES, &["select count(*) filter (where tenant_id <> {a}) from {table}"])
    },
    Attack {
        everywhere: true,
        ..attack("the tenant set by hand", Counts, BARE_SETTING, &["select set_config('app.current_tenant', '{b}', true)", COUNT])
    },
    attack("the tenant set in the same statement", Counts, BARE_SETTING, &[
        "select (select count(*) from {table} where tenant_id = {b} and s.t = '{b}')
                   from (select set_config('app.current_tenant', '{b}', true) as t offset 0) s",
    ]),
    attack("a context that says nothing", Counts,
        "alter policy tenant on {table} using (
             coalesce(current_setting('app.current_tenant', true), '') = '' or tenant_id = (select waangu.tenant()))",
        &["reset all", COUNT]),
    attack("DISCARD SEQUENCES and the setting", Counts, BARE_SETTING, &["discard sequences", "set local app.current_tenant = '{b}'", COUNT]),
    attack("row_security = off", Counts, "alter role {login} bypassrls", &["set row_security = off", COUNT]),
    attack("the seal moved by setval", Counts,
        "grant update on sequence waangu.seal_tenant, waangu.seal_time to waangu_module",
        &["select setval('waangu.seal_time', waangu.transaction_time() * 2), setval('waangu.seal_tenant', {b})
                , set_config('app.current_tenant', '{b}', true)", COUNT]),
    attack("the seal moved by nextval", Succeeds, "grant usage on sequence waangu.seal_tenant to waangu_module", &["select nextval('waangu.seal_tenant')"]),
    attack("the gateway's key read", Succeeds, "grant select on waangu.context_key to waangu_module", &["select * from waangu.context_key"]),
    attack("another tenant's door moved", Succeeds, "grant select, update on waangu.home to waangu_module", &["update waangu.home set epoch = 99 where tenant_id = {b}"]),
    attack("a forged proof", Counts,
        "create or replace function waangu.enter(p_claims text, p_kid integer, p_mac text) returns void
         language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
         begin perform setval('waangu.seal_time', waangu.transaction_time() * 2)
                     , setval('waangu.seal_tenant', split_part(p_claims, '|', 3)::bigint)
                     , set_config('app.current_tenant', split_part(p_claims, '|', 3), true); end $$",
        &["select waangu.enter('v1|{login}|{b}|1|9999999999|w|a|r', 1, repeat('0', 64))", COUNT]),
    // Other roles.
    attack("SET ROLE to the owner of tables", Counts,
        "grant waangu_owner to {login}; alter table {table} no force row level security", &["set role waangu_owner", COUNT]),
    attack("SET SESSION AUTHORIZATION", Counts, "alter role {login} superuser", &["set session authorization postgres", COUNT]),
    attack("a predefined role", Succeeds, "grant pg_monitor to {login}", &["set role pg_monitor"]),
    // Objects that look past the policies.
    attack("a view with its owner's eyes", Counts,
        "create view {schema}.peep as select * from {table}; grant select on {schema}.peep to {login}",
        &["select count(*) from {schema}.peep where tenant_id = {b}"]).dropping("drop view if exists {schema}.peep"),
    attack("a function with its owner's rights", Counts,
        "create function {schema}.peep() returns bigint language sql security definer
         begin atomic select count(*) from {table} where tenant_id = {b}; end",
        &["select {schema}.peep()"]).dropping("drop function if exists {schema}.peep()"),
    attack("a materialised view", Counts,
        "create materialized view {schema}.peep as select * from {table}; grant select on {schema}.peep to {login}",
        &["select count(*) from {schema}.peep where tenant_id = {b}"]),
    attack("a function said to be leakproof", Says,
        "create function {schema}.peep({table}) returns boolean language plpgsql leakproof cost 0.0001
         as $$ begin
             if $1::text like '%{secret}%' then raise exception 'saw %', $1; end if; return true; end $$",
        &["set enable_indexscan = off", "set enable_bitmapscan = off", "select count(*) from {table} t where {schema}.peep(t)"]),
    // What errors, plans and statistics tell.
    attack("an error that quotes a row", Says, NO_POLICIES, &["select t::text::integer from {table} t where tenant_id = {b} order by t::text like '%{secret}%' desc"]),
    attack("an error that counts", Fails("22012"), NO_POLICIES, &["select 1 / (tenant_id - {b}) from {table} where tenant_id is not null"]),
    attack("samples in pg_stats", Counts, NO_POLICIES,
        &["select count(*) from pg_stats where schemaname = '{schema}' and tablename = '{name}'"]),
    attack("a scan by place on disk", Counts, NO_POLICIES, &["select count(*) filter (where tenant_id = {b}) from {table} where ctid >= '(0,0)'"]),
    attack("a random sample", Counts, NO_POLICIES, &["select count(*) filter (where tenant_id = {b}) from {table} tablesample system (100)"]),
    attack("a query as XML", Says, NO_POLICIES, &["select query_to_xml('select t::text from {table} t', true, false, '')"]),
    attack("COPY TO", Says, NO_POLICIES, &["declare c cursor for select t::text from {table} t", "fetch all from c"]),
    attack("a lock that finds rows", Counts, NO_POLICIES, &["with l as (select from {table} where tenant_id = {b} for key share) select count(*) from l"]).needing("has_table_privilege('{login}', '{table}', 'update')"),
    attack("a unique key over all tenants", Fails("23505"), "create unique index peep on {table} ({key})",
        &["insert into {table} select * from jsonb_populate_record(null::{table}, '{row}')"]).needing(TOGETHER),
    attack("ON CONFLICT over all tenants", Counts, "create unique index peep on {table} ({key})",
        &["with i as (insert into {table} select * from jsonb_populate_record(null::{table}, '{row}') on conflict do nothing returning 1)
           select 1 - count(*) from i"]).needing("'{database}' !~ '^waangu_t_' and not exists (select from pg_constraint where conrelid = '{table}'::regclass and contype = 'f')"),
    attack("a foreign key over all tenants", Succeeds,
        "create unique index peep on {parent} ({parent_columns});
         create function {schema}.peep() returns void language sql as 'select';
         do $$ declare k record; begin
             for k in select conname, pg_get_constraintdef(oid) as def from pg_constraint
                       where conrelid = '{table}'::regclass and contype = 'f' loop
                 execute format('alter table {table} drop constraint %I', k.conname);
                 execute format('comment on function {schema}.peep() is %L'
                              , coalesce(obj_description('{schema}.peep()'::regprocedure), '')
                                || format('alter table {table} add constraint %I %s; ', k.conname, k.def));
             end loop; end $$;
         alter table {table} add constraint peep foreign key ({columns}) references {parent} ({parent_columns})",
        &["insert into {table} select * from jsonb_populate_record(null::{table}, '{row}')"])
        .dropping("alter table {table} drop constraint if exists peep;
                   do $$ begin execute obj_description('{schema}.peep()'::regprocedure); end $$;
                   drop function {schema}.peep()")
        .needing(TOGETHER),
    // Writing.
    Attack {
        everywhere: true,
        ..attack("rows planted for another tenant", Succeeds, NO_POLICIES,
            &["insert into {table} select * from jsonb_populate_record(null::{table}, '{row}'::jsonb || '{\"tenant_id\": {b}}') on conflict do nothing"])
    },
    attack("another tenant's rows changed", Counts, "alter table {table} disable row level security; grant update on {table} to {login}",
        &["with u as (update {table} set tenant_id = tenant_id where tenant_id = {b} returning 1) select count(*) from u"]),
    attack("another tenant's rows removed", Counts,
        "alter table {table} disable row level security; grant delete on {table} to {login}; alter table {table} disable trigger all",
        &["with d as (delete from {table} where tenant_id = {b} returning 1) select count(*) from d"]),
    attack("TRUNCATE", Succeeds, "grant truncate on all tables in schema {schema} to {login}", &["truncate {table} cascade"]),
    Attack {
        reads: true,
        savepoint: true,
        ..attack("writing with a proof for reading", Counts,
            "alter policy tenant_insert on {table} with check (true); alter table {table} disable trigger all",
            &["with i as (insert into {table} select * from jsonb_populate_record(null::{table}, '{row}') returning 1) select count(*) from i"])
    },
    // Names that hide others, and things left behind.
    attack("a temporary table in a table's place", Succeeds, "grant temporary on database {database} to {login}", &["create temporary table {name} (id bigint)"]),
    attack("a temporary view in a table's place", Succeeds, "grant temporary on database {database} to public", &["create temporary view {name} as select 1 as id"]),
    attack("an operator found first", Succeeds, "grant create on database {database} to {login}",
        &["create schema sandbox", "create function sandbox.yes(bigint, bigint) returns boolean language sql return true",
          "create operator sandbox.= (leftarg = bigint, rightarg = bigint, function = sandbox.yes)"]),
    attack("a function in the module's schema", Succeeds, "grant create on schema {schema} to {login}",
        &["create function {schema}.now() returns timestamptz language sql return null::timestamptz"]),
    attack("a function in the schema public", Succeeds, "grant usage, create on schema public to {login}",
        &["create function public.f() returns bigint language sql return 1"]),
    attack("a trigger on a table", Succeeds, "grant trigger on {table} to {login}",
        &["create trigger t before update on {table} for each row execute function suppress_redundant_updates_trigger()"]),
    attack("a policy of one's own", Counts, "alter table {table} owner to {login}", &["create policy mine on {table} using (true)", COUNT]),
    attack("a large object", Succeeds, "grant execute on function lo_create(oid) to {login}", &["select lo_create(0)"]),
    attack("a large object from bytes", Succeeds, "grant execute on function lo_from_bytea(oid, bytea) to waangu_module", &["select lo_from_bytea(0, 'x')"]),
    // Other sessions.
    attack("statements in pg_stat_activity", Says,
        "grant select on pg_stat_activity to {login}; grant execute on function pg_stat_get_activity(integer) to {login}",
        &["select string_agg(query, ' ') from pg_stat_activity"]),
    attack("statements by process", Says, "grant execute on function pg_stat_get_backend_activity(integer) to {login}",
        &["select string_agg(pg_stat_get_backend_activity(id), ' ') from pg_stat_get_backend_idset() id"]),
    attack("who works, in pg_locks", Succeeds, "grant select on pg_locks to {login}; grant execute on function pg_lock_status() to {login}",
        &["select objid from pg_locks where locktype = 'advisory'"]),
    attack("another session cancelled", Succeeds, "grant execute on function pg_cancel_backend(integer) to {login}", &["select pg_cancel_backend({pid})"]),
    attack("another session ended", Succeeds, "grant execute on function pg_terminate_backend(integer, bigint) to {login}", &["select pg_terminate_backend({pid})"]),
    attack("another tenant frozen", Succeeds, "grant execute on function pg_advisory_xact_lock(bigint) to {login}", &["select pg_advisory_xact_lock({b})"]),
    attack("another tenant frozen for good", Succeeds, "grant execute on function pg_try_advisory_lock(bigint) to public", &["select pg_try_advisory_lock({b})"]),
    attack("a message to the platform", Succeeds, "grant execute on function pg_notify(text, text) to {login}", &["select pg_notify('waangu_change', 'x')"]),
    attack("a message to replicas", Succeeds, "grant execute on function pg_logical_emit_message(boolean, text, text) to {login}",
        &["select pg_logical_emit_message(false, 'waangu', 'x')"]),
    attack("the whole log by replication", Fails("55000"), "alter role {login} replication",
        &["select pg_create_logical_replication_slot('peep', 'test_decoding')"]).needing("current_setting('wal_level') <> 'logical'"),
    // The machine below.
    attack("COPY TO PROGRAM", Succeeds, "grant pg_execute_server_program to {login}", &["copy (select 1) to program 'true'"]),
    attack("COPY TO a file", Succeeds, "grant pg_write_server_files to {login}", &["copy (select 1) to '/dev/null'"]),
    attack("a file read", Succeeds, "grant execute on function pg_read_file(text) to {login}", &["select pg_read_file('PG_VERSION')"]),
    attack("a folder listed", Succeeds, "grant execute on function pg_ls_dir(text) to public", &["select pg_ls_dir('.')"]),
    attack("triggers and keys switched off", Succeeds, "grant set on parameter session_replication_role to {login}",
        &["set session_replication_role = replica"]),
    attack("an extension", Succeeds, "grant create on database {database} to {login}", &["create schema sandbox", "create extension citext schema sandbox"])
        .needing("exists (select from pg_available_extensions where name = 'citext')"),
    attack("a way out by dblink", Succeeds, "create extension dblink schema {schema}", &["select '{schema}.dblink_connect(text)'::regprocedure"])
        .needing("exists (select from pg_available_extensions where name = 'dblink')"),
];

impl Attack {
    const fn dropping(self, restore: &'static str) -> Self {
        Self { restore, ..self }
    }

    const fn needing(self, needs: &'static str) -> Self {
        Self { needs, ..self }
    }
}
