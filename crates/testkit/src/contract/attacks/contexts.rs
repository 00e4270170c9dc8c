//! Forged contexts, other roles, and objects that look past the policies.

use super::Leak::{Counts, Says, Succeeds};
use super::{Attack, BARE_SETTING, COUNT, NO_POLICIES, attack};

pub(super) const ATTACKS: &[Attack] = &[
    // Forgotten conditions and forged contexts.
    Attack {
        everywhere: true,
        ..attack(
            "a forgotten WHERE",
            Counts,
            NO_POLICIES,
            &["select count(*) filter (where tenant_id <> {a}) from {table}"],
        )
    },
    Attack {
        everywhere: true,
        ..attack(
            "the tenant set by hand",
            Counts,
            BARE_SETTING,
            &["set local app.current_tenant = '{b}'", COUNT],
        )
    },
    attack(
        "the tenant set in the same statement",
        Counts,
        "alter policy tenant on {table} using (tenant_id =
             nullif(current_setting('app.current_tenant', true),
             '')::bigint); grant execute on function set_config(text, text,
             boolean) to {login}",
        &[
            "select (select count(*) from {table} where tenant_id = {b} and
             s.t = '{b}') from (select set_config('app.current_tenant',
             '{b}', true) as t offset 0) s",
        ],
    ),
    attack(
        "a context that says nothing",
        Counts,
        "alter policy tenant on {table} using (
             coalesce(current_setting('app.current_tenant', true), '') = ''
             or tenant_id = (select waangu.tenant()))",
        &["reset all", COUNT],
    ),
    attack(
        "DISCARD SEQUENCES and the setting",
        Counts,
        BARE_SETTING,
        &[
            "discard sequences",
            "set local app.current_tenant = '{b}'",
            COUNT,
        ],
    ),
    attack(
        "row_security = off",
        Counts,
        "alter role {login} bypassrls",
        &["set row_security = off", COUNT],
    ),
    attack(
        "the seal set by hand",
        Counts,
        "grant set on parameter backtrace_functions to {login}",
        &[
            "set local backtrace_functions = 'w{b}'",
            "set local app.current_tenant = '{b}'",
            COUNT,
        ],
    ),
    attack(
        "the seal set in the same statement",
        Counts,
        "grant set on parameter backtrace_functions to waangu_module; grant
             execute on function set_config(text, text, boolean) to {login};
             grant waangu_context to {login}",
        &[
            "set role waangu_context",
            "select set_config('backtrace_functions', 'r{b}', true),
             set_config('app.current_tenant', '{b}', true)",
            "reset role",
            COUNT,
        ],
    ),
    attack(
        "the gateway's key read",
        Succeeds,
        "grant select on waangu.context_key to waangu_module",
        &["select * from waangu.context_key"],
    ),
    attack(
        "another tenant's door moved",
        Succeeds,
        "grant select, update on waangu.home to waangu_module",
        &["update waangu.home set epoch = 99 where tenant_id = {b}"],
    ),
    attack(
        "a forged proof",
        Counts,
        "create or replace function waangu.enter(p_claims text, p_kid
             integer, p_mac text) returns void language plpgsql security
             definer set search_path = pg_catalog, pg_temp as $$ begin
             perform set_config('backtrace_functions', 'w' ||
             split_part(p_claims, '|', 3), true) ,
             set_config('app.current_tenant', split_part(p_claims, '|', 3),
             true); end $$",
        &[
            "select waangu.enter('v1|{login}|{b}|1|9999999999|w|a|r', 1,
             repeat('0', 64))",
            COUNT,
        ],
    ),
    // Other roles.
    attack(
        "SET ROLE to the owner of tables",
        Counts,
        "grant waangu_owner to {login}; alter table {table} no force
             row level security",
        &["set role waangu_owner", COUNT],
    ),
    attack(
        "SET SESSION AUTHORIZATION",
        Counts,
        "alter role {login} superuser",
        &["set session authorization postgres", COUNT],
    ),
    attack(
        "a predefined role",
        Succeeds,
        "grant pg_monitor to {login}",
        &["set role pg_monitor"],
    ),
    // Objects that look past the policies.
    attack(
        "a view with its owner's eyes",
        Counts,
        "create view {schema}.peep as select * from {table}; grant
             select on {schema}.peep to {login}",
        &["select count(*) from {schema}.peep where tenant_id = {b}"],
    )
    .dropping("drop view if exists {schema}.peep"),
    attack(
        "a function with its owner's rights",
        Counts,
        "create function {schema}.peep() returns bigint language sql
             security definer begin atomic select count(*) from {table}
             where tenant_id = {b}; end",
        &["select {schema}.peep()"],
    )
    .dropping("drop function if exists {schema}.peep()"),
    attack(
        "a materialised view",
        Counts,
        "create materialized view {schema}.peep as select * from
             {table}; grant select on {schema}.peep to {login}",
        &["select count(*) from {schema}.peep where tenant_id = {b}"],
    ),
    attack(
        "a function said to be leakproof",
        Says,
        "create function {schema}.peep({table}) returns boolean
             language plpgsql leakproof cost 0.0001 as $$ begin if $1::text
             like '%{secret}%' then raise exception 'saw %', $1; end if;
             return true; end $$",
        &[
            "set enable_indexscan = off",
            "set enable_bitmapscan = off",
            "select count(*) from {table} t where {schema}.peep(t)",
        ],
    ),
];
