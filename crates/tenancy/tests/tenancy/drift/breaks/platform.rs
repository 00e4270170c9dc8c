//! In the helper schema, among the roles, and in the catalogues.

use super::{Break, LOGIN, breaks, several};

pub(super) const BREAKS: &[Break] = &[
    // The helper schema.
    breaks(
        "grant select on waangu.context_key to waangu_module",
        "table waangu.context_key",
        "right SELECT",
    ),
    breaks(
        "grant update on waangu.home to waangu_stock",
        "table waangu.home",
        "right UPDATE",
    ),
    breaks(
        "grant select on waangu.closure to waangu_tree",
        "table waangu.closure",
        "right SELECT",
    ),
    breaks(
        "alter table waangu.home owner to waangu_owner",
        "table waangu.home",
        "owner",
    ),
    breaks(
        "alter table waangu.home drop constraint home_state_check",
        "table waangu.home",
        "home_state_check: none",
    ),
    breaks(
        "alter table waangu.home alter state set default 'active'",
        "table waangu.home",
        "column state",
    ),
    breaks(
        "create index surplus on waangu.home (state)",
        "table waangu.home",
        "index surplus",
    ),
    breaks(
        "grant set on parameter backtrace_functions to waangu_module",
        "parameter backtrace_functions",
        "right SET of waangu_module",
    ),
    breaks(
        "revoke set on parameter backtrace_functions from waangu_context",
        "parameter backtrace_functions",
        "right SET of waangu_context: none",
    ),
    breaks(
        "alter role waangu_stock set backtrace_functions = 'w1'",
        "login waangu_stock",
        "setting backtrace_functions",
    ),
    breaks(
        "alter role waangu_stock connection limit -1",
        "login waangu_stock",
        "connections: not limited",
    ),
    breaks("create sequence waangu.s", "sequence waangu.s", ""),
    breaks(
        "alter function waangu.enter(text, integer, text) security invoker",
        "function waangu.enter(text,integer,text)",
        "rights of",
    ),
    breaks(
        "alter function waangu.enter(text, integer, text) reset search_path",
        "function waangu.enter(text,integer,text)",
        "settings: none",
    ),
    breaks(
        "alter function waangu.enter(text, integer, text) owner to postgres",
        "function waangu.enter(text,integer,text)",
        "owner",
    ),
    breaks(
        "alter function waangu.tenant() stable",
        "function waangu.tenant()",
        "volatility: stable",
    ),
    breaks(
        "alter function waangu.tenant() leakproof",
        "function waangu.tenant()",
        "leakproof",
    ),
    breaks(
        "alter function waangu.tenant() parallel safe",
        "function waangu.tenant()",
        "parallel safe",
    ),
    breaks(
        "create or replace function waangu.tenant() returns bigint language
         sql volatile parallel restricted return
         current_setting('app.current_tenant')::bigint",
        "function waangu.tenant()",
        "body",
    ),
    breaks(
        "create or replace function waangu.subtree() returns bigint[]
         language plpgsql stable parallel restricted security definer set
         search_path = pg_catalog, pg_temp as
         'begin return array[1, 2]; end'",
        "function waangu.subtree()",
        "body",
    ),
    breaks(
        "grant execute on function waangu.migrate(text, text) to waangu_stock",
        "function waangu.migrate(text,text)",
        "right EXECUTE",
    ),
    breaks(
        "grant usage on schema waangu_migration to waangu_owner",
        "schema waangu_migration",
        "right USAGE of waangu_owner",
    ),
    breaks(
        "alter function waangu_migration.run(text, text) security invoker",
        "function waangu_migration.run(text,text)",
        "runs with the rights of",
    ),
    breaks(
        "grant execute on procedure waangu.protect(text, text, text[]) to public",
        "procedure waangu.protect(text,text,text[])",
        "right EXECUTE",
    ),
    breaks(
        "create function waangu.f() returns bigint language sql return 1;
         revoke execute on function waangu.f() from public",
        "function waangu.f()",
        "",
    ),
    breaks(
        "alter policy tenant on waangu.pattern using (true)",
        "table waangu.pattern",
        "policy tenant",
    ),
    breaks(
        "drop function waangu.migrate(text, text)",
        "function waangu.migrate(text,text)",
        "is missing",
    ),
    breaks(
        "create trigger t before insert on waangu.home for each row execute
         function suppress_redundant_updates_trigger()",
        "table waangu.home",
        "trigger t",
    ),
    breaks(
        "grant create on schema waangu to waangu_module",
        "schema waangu",
        "right CREATE",
    ),
    breaks(
        "grant usage on schema public to public",
        "schema public",
        "right USAGE of public",
    ),
    breaks("create table public.t ()", "table public.t", ""),
    // Roles.
    breaks("alter role waangu_stock bypassrls", LOGIN, "bypassrls"),
    breaks(
        "alter role waangu_stock createrole createdb",
        LOGIN,
        "createrole",
    ),
    breaks("alter role waangu_stock replication", LOGIN, "replication"),
    breaks(
        "alter role waangu_stock_tree bypassrls",
        "login for reading waangu_stock_tree",
        "bypassrls",
    ),
    breaks(
        "alter role waangu_crm superuser",
        "login waangu_crm",
        "superuser",
    ),
    breaks(
        "alter role waangu_module login",
        "role waangu_module",
        "login",
    ),
    breaks(
        "alter role waangu_owner bypassrls",
        "role waangu_owner",
        "bypassrls",
    ),
    several(
        2,
        "grant waangu_owner to waangu_stock",
        LOGIN,
        "member of waangu_owner",
    ),
    breaks(
        "grant pg_read_all_data to waangu_stock",
        LOGIN,
        "member of pg_read_all_data",
    ),
    breaks(
        "grant pg_signal_backend to waangu_module",
        "role waangu_module",
        "member of pg_signal_backend",
    ),
    breaks(
        "grant waangu_tree to waangu_stock",
        LOGIN,
        "member of waangu_tree",
    ),
    breaks(
        "grant waangu_module to waangu_stock with admin option",
        LOGIN,
        "with admin option",
    ),
    breaks(
        "alter role waangu_stock set row_security = off",
        LOGIN,
        "setting row_security",
    ),
    breaks(
        "alter role waangu_stock set search_path = public",
        LOGIN,
        "setting search_path",
    ),
    breaks(
        "alter role waangu_stock in database waangu set search_path = public",
        LOGIN,
        "in database waangu",
    ),
    // The database and the server.
    breaks(
        "grant temporary on database waangu to public",
        "database",
        "right TEMPORARY of public",
    ),
    breaks(
        "grant connect on database waangu to public",
        "database",
        "right CONNECT of public",
    ),
    breaks(
        "grant create on database waangu to waangu_module",
        "database",
        "right CREATE",
    ),
    breaks(
        "alter database waangu set session_replication_role = replica",
        "database",
        "setting session_replication_role",
    ),
    breaks(
        "grant connect on database postgres to public",
        "database postgres",
        "right CONNECT",
    ),
    breaks(
        "grant execute on function pg_advisory_lock(bigint) to public",
        "function pg_advisory_lock(bigint)",
        "expected: none",
    ),
    breaks(
        "grant execute on function pg_read_file(text) to waangu_stock",
        "function pg_read_file(text)",
        "waangu_stock",
    ),
    breaks(
        "grant select on pg_stat_activity to waangu_stock",
        "view pg_stat_activity",
        "SELECT of waangu_stock",
    ),
    breaks(
        "grant select on pg_authid to public",
        "table pg_authid",
        "SELECT of public",
    ),
    breaks(
        "alter function pg_catalog.pg_ls_dir(text) security definer",
        "routine pg_ls_dir(text)",
        "owner's rights",
    ),
    breaks(
        "alter default privileges for role waangu_crm grant select on tables to public",
        "default privileges of waangu_crm",
        "right SELECT on tables of public",
    ),
    breaks(
        "alter default privileges for role waangu_owner grant truncate on tables to waangu_module",
        "default privileges of waangu_owner",
        "right TRUNCATE on tables of waangu_module",
    ),
    breaks(
        "grant set on parameter session_replication_role to waangu_stock",
        "parameter session_replication_role",
        "right SET of waangu_stock",
    ),
    breaks(
        "create foreign data wrapper elsewhere",
        "foreign-data wrapper elsewhere",
        "is there",
    ),
    breaks(
        "create language mine handler plpgsql_call_handler",
        "language mine",
        "untrusted",
    ),
    several(
        2,
        "create function public.e() returns event_trigger language plpgsql as 'begin end';
         create event trigger e on ddl_command_end execute function public.e()",
        "event trigger e",
        "not expected",
    ),
    breaks("select lo_create(77)", "large objects", "large object 77"),
    breaks("create publication peep", "publication peep", "is there"),
    breaks(
        "create operator pg_catalog.=== (leftarg = bigint, rightarg = bigint, function = int8eq)",
        "operator ===(bigint,bigint)",
        "not expected",
    ),
    breaks(
        "create cast (date as bytea) with function date_send(date)",
        "cast from date to bytea",
        "made by hand",
    ),
];
