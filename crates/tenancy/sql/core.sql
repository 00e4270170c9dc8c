-- The helper schema of every database that holds tenants, in all three tiers: makes it, in the template
-- from which all of them are made, or brings what an earlier version of this script made up to date.
-- Whoever changes it or protect.sql raises `VERSION` in admin/core.rs, which stands here as {version}, drops
-- what is no longer made, and keeps what tables hold. No transaction of a tenant is open meanwhile.
--
-- Invariants:
--   * a row is visible only to a transaction that `waangu.enter` has sealed for the row's tenant;
--   * the seal can be set only by `enter`, and `enter` accepts only a proof that the gateway made;
--   * a row can be written only if the proof said so, whatever became of the transaction's settings;
--   * without a seal every tenant table is empty, and nothing can be written;
--   * no function lets a query change the session: what it has cached (plans, times that were read in
--     some time zone) would serve the next tenant, and no RESET takes that back;
--   * a proof for a subtree seals only sessions of a `_tree` login, which no other proof seals.
--
-- The seal is a setting that everybody may read and only `waangu_context` may set, for one transaction:
-- the tenant's number after `w`, `r` or `t`, as the proof said. PostgreSQL itself ends it with the
-- transaction, or with ROLLBACK TO SAVEPOINT, and in the same moment lets go of a writer's lock. Of the
-- settings that need a right (`roles.sql` grants it), one takes any text, is shown to everybody and does
-- nothing unless an error arises in a C function of that name: `backtrace_functions`. A sequence, read by
-- `currval`, would outlive both: transactions of one message have one start time to bind it to.

revoke all on schema public from public;

create schema if not exists waangu authorization waangu_context;
grant usage on schema waangu to waangu_module, waangu_tree;

-- HMAC pads (RFC 2104) of the gateway's context keys. Two rows during a rotation.
create table if not exists waangu.context_key (
    kid integer primary key
  , ipad bytea not null
  , opad bytea not null
  , not_after timestamptz not null default 'infinity'
);
-- The version of this script that the keys are accepted by: whoever waits with an older `enter` while
-- that is replaced reads it here, and begins anew.
alter table waangu.context_key add column if not exists core integer not null default 0;
alter table waangu.context_key alter column core set default {version};
update waangu.context_key set core = {version} where core <> {version};

-- One row for each tenant whose data is here. The row is the fence: with another epoch or state, no
-- transaction of that tenant begins here.
create table if not exists waangu.home (
    tenant_id bigint primary key
  , state text not null check (state in ('active', 'suspended', 'moved'))
  , epoch bigint not null
);

-- Who may read whom besides itself: for each tenant that is at home here all its ancestors, itself
-- included, wherever those live. Written by the control plane.
create table if not exists waangu.closure (
    ancestor bigint not null
  , descendant bigint not null
  , primary key (ancestor, descendant)
);
create index if not exists closure_descendant on waangu.closure (descendant);

-- Which version of this script made all this. One row; written by the control plane.
create table if not exists waangu.core (
    one boolean primary key default true check (one)
  , version integer not null
  , hash text not null
  , applied_at timestamptz not null default now()
);

-- Which migrations of which module stand in which schema.
create table if not exists waangu.migration (
    schema_name text not null
  , module text not null
  , number integer not null
  , name text not null
  , applied_at timestamptz not null default now()
  , primary key (schema_name, module, number)
);

alter table waangu.context_key owner to waangu_context;
alter table waangu.home owner to waangu_context;
alter table waangu.closure owner to waangu_context;
-- What an earlier version granted.
revoke all on all tables in schema waangu from waangu_module, waangu_tree;
revoke all on all routines in schema waangu from waangu_module, waangu_tree;

-- Begins a tenant's transaction. Claims: v1|login|tenant|epoch|expires|r, w or t|actor|request, where
-- t reads the tenant's whole subtree.
create or replace function waangu.enter(p_claims text, p_kid integer, p_mac text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    -- What no gateway makes is not even taken apart: its lock would be held for as long as that takes.
    v_claim text[] := case when octet_length(p_claims) <= 1024 then string_to_array(p_claims, '|') end;
    v_tenant bigint := v_claim[3];
    v_access text := v_claim[6];
    -- Writers hold this until they end, so that a relocation can wait for the last of them. Before
    -- the home row is read, which says whether the relocation is already over. What is not proved
    -- lets go of it at once, with the error.
    v_free boolean := v_access is distinct from 'w' or pg_try_advisory_xact_lock_shared(v_tenant);
    v_core integer;
    v_ipad bytea;
    v_opad bytea;
    v_state text;
    v_epoch bigint;
    v_set text;
begin
    select k.core, k.ipad, k.opad, h.state, h.epoch into v_core, v_ipad, v_opad, v_state, v_epoch
      from waangu.context_key k
      left join waangu.home h on h.tenant_id = v_tenant
     where k.kid = p_kid and k.not_after > now();
    if v_ipad is null
       or v_claim[1] is distinct from 'v1'
       or encode(sha256(v_opad || sha256(v_ipad || convert_to(p_claims, 'UTF8'))), 'hex')
          is distinct from p_mac
       or v_claim[2] is distinct from session_user::text
       or v_claim[5]::bigint < date_part('epoch', clock_timestamp())
       or (v_access = 't') is distinct from session_user::text like 'waangu\_%\_tree'
    then
        raise insufficient_privilege using message = 'tenant context refused';
    end if;
    if v_core <> {version} then
        raise exception using errcode = 'WG001', message = 'the helper schema was replaced, retry';
    end if;
    -- An older snapshot would not see that the tenant was frozen or has moved.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise insufficient_privilege using message = 'tenant context needs read committed';
    end if;
    -- A replica's home row may be of yesterday.
    if current_setting('transaction_read_only') = 'on' then
        raise read_only_sql_transaction using message = 'tenant context needs the primary server';
    end if;
    if v_access = 't' then
        perform waangu.enter_tree(v_tenant, v_claim[7], v_claim[8]);
        return;
    end if;
    if not v_free then
        raise exception using errcode = 'WG001', message = 'tenant is frozen, retry';
    end if;
    if v_state is distinct from 'active' or v_epoch is distinct from v_claim[4]::bigint then
        raise exception using errcode = 'WG001', message = 'tenant is not here, retry';
    end if;
    -- An assignment, because it needs no plan and no executor.
    v_set := set_config('backtrace_functions', v_access || v_tenant, true)
          || set_config('app.current_tenant', v_tenant::text, true)
          || set_config('app.actor', v_claim[7], true)
          || set_config('app.request', v_claim[8], true);
    -- For early and clear errors.
    if v_access <> 'w' then
        v_set := set_config('transaction_read_only', 'on', true);
    end if;
end $$;

-- The rest of `enter` for a subtree. Its root need not be at home here, so its epoch says nothing; the
-- fence is the home row of each tenant below it (`subtree`).
create or replace function waangu.enter_tree(p_tenant bigint, p_actor text, p_request text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from waangu.home where tenant_id = p_tenant and state = 'suspended') then
        raise exception using errcode = 'WG001', message = 'tenant is not here, retry';
    end if;
    perform set_config('backtrace_functions', 't' || p_tenant, true)
          , set_config('app.current_tenant', p_tenant::text, true)
          , set_config('app.actor', p_actor, true)
          , set_config('app.request', p_request, true)
          , set_config('transaction_read_only', 'on', true);
end $$;

-- The tenants that this transaction may read: those of the sealed subtree that are at home here and
-- open. Empty without a seal. `waangu.visit` may narrow it; nothing widens it.
create or replace function waangu.subtree() returns bigint[]
language plpgsql stable parallel restricted security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_tenant bigint := nullif(current_setting('app.current_tenant', true), '')::bigint;
    v_visited bigint[] := nullif(current_setting('app.visit', true), '')::bigint[];
begin
    if v_tenant is null or current_setting('backtrace_functions') is distinct from 't' || v_tenant then
        return '{}';
    end if;
    return array(select c.descendant
                   from waangu.closure c
                   join waangu.home h on h.tenant_id = c.descendant
                  where c.ancestor = v_tenant
                    and h.state = 'active'
                    and (v_visited is null or c.descendant = any (v_visited))
                  order by c.descendant);
end $$;

-- Narrows this transaction to some tenants of its subtree, and tells which of them are here. So a
-- tenant that is on its way between two places is never counted twice, and one that is missing is
-- known by name.
create or replace function waangu.visit(p_tenants bigint[]) returns bigint[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('app.visit', p_tenants::text, true);
    return waangu.subtree();
end $$;

-- Has this transaction look up names in a schema. One name, so PostgreSQL's own come first as ever. No
-- setting of its own, which would end with the function and take this one along.
create or replace function waangu.path(p_schema text) returns text
language sql volatile security definer
return pg_catalog.set_config('search_path', pg_catalog.quote_ident(p_schema), true);

-- The tenant of this transaction, or null: `app.current_tenant` counts only if it says what was sealed.
-- The body is parsed once and its operators are bound by OID, so a search_path set by an attacker changes
-- nothing; the planner inlines it.
create or replace function waangu.tenant() returns bigint
language sql volatile parallel restricted
return case current_setting('backtrace_functions')
    when 'w' || current_setting('app.current_tenant', true)
    then current_setting('app.current_tenant')::bigint
    when 'r' || current_setting('app.current_tenant', true)
    then current_setting('app.current_tenant')::bigint
end;

-- The same, but null unless the proof was for writing.
create or replace function waangu.writer() returns bigint
language sql volatile parallel restricted
return case current_setting('backtrace_functions')
    when 'w' || current_setting('app.current_tenant', true)
    then current_setting('app.current_tenant')::bigint
end;

-- What version 1 sealed with: who still does fails.
drop sequence if exists waangu.seal_tenant, waangu.seal_time, waangu.seal_tree;
drop function if exists waangu.transaction_time();

-- Runs a module's migration as the owner of tables. A function with its owner's rights, because
-- inside one PostgreSQL refuses COMMIT and any change of role: what a package says stays in the
-- caller's transaction and below the administrator's rights.
--
-- Its owner is who runs the migration, and could take those rights from it, give it to a module or put
-- another in its place. So it lies where the owner has no USAGE: there nobody can name it but the
-- administrator, and to run it takes none. DROP OWNED names nothing; whoever says that is refused next.
create schema if not exists waangu_migration;
create or replace function waangu_migration.run(p_schema text, p_sql text) returns void
language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    v_schema oid := to_regnamespace(quote_ident(p_schema));
    v_forced regclass[] := array(
        select c.oid
          from pg_depend d
          join pg_class c on c.oid = d.objid
         where d.refclassid = 'pg_namespace'::regclass
           and d.refobjid = v_schema
           and d.classid = 'pg_class'::regclass
           and c.relkind in ('r', 'p')
           and c.relforcerowsecurity);
    v_table regclass;
begin
    -- No tenant has entered, so with FORCE a back-fill would change nothing, silently. Without
    -- `row_security` it fails instead, and so does whatever else would miss a row. Most migrations don't look
    -- at rows: they lock no table but their own. Those that could catch the failure are not tried.
    if v_forced <> '{}' and p_sql !~* 'exception|row_security'
       and not exists (select from pg_depend d
                         join pg_proc p on p.oid = d.objid
                        where d.refclassid = 'pg_namespace'::regclass
                          and d.refobjid = v_schema
                          and d.classid = 'pg_proc'::regclass
                          and (p.prosrc ~* 'exception|row_security' or p.proconfig::text ~ 'row_security'))
    then
        begin
            set local row_security = off;
            execute 'set local search_path = ' || quote_ident(p_schema);
            execute p_sql;
            -- A deferred trigger would run at COMMIT, with the administrator's rights.
            set constraints all immediate;
            return;
        exception when insufficient_privilege then
            -- Nothing of it stays. What is not about rows fails again.
        end;
    end if;
    -- `protect` puts it back in the same transaction.
    foreach v_table in array v_forced loop
        execute format('alter table %s no force row level security', v_table);
    end loop;
    execute 'set local search_path = ' || quote_ident(p_schema);
    execute p_sql;
    set constraints all immediate;
end $$;

-- What control planes call. Nothing of it is run after the migration, which may have set a search path.
drop function if exists waangu.migrate(text, text);
create function waangu.migrate(p_schema text, p_sql text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_proc p
                    where p.oid = to_regprocedure('waangu_migration.run(text, text)')
                      and p.prosecdef and p.proowner = 'waangu_owner'::regrole)
    then
        raise insufficient_privilege
            using message = 'waangu_migration.run is not as the helper schema made it';
    end if;
    perform waangu_migration.run(p_schema, p_sql);
end $$;

alter function waangu.enter(text, integer, text) owner to waangu_context;
alter function waangu.enter_tree(bigint, text, text) owner to waangu_context;
alter function waangu.subtree() owner to waangu_context;
alter function waangu.visit(bigint[]) owner to waangu_context;
alter function waangu.path(text) owner to waangu_context;
alter function waangu.tenant() owner to waangu_context;
alter function waangu.writer() owner to waangu_context;
alter function waangu_migration.run(text, text) owner to waangu_owner;
revoke execute on all functions in schema waangu, waangu_migration from public;
grant execute on function waangu.enter(text, integer, text), waangu.tenant(), waangu.writer()
    , waangu.path(text)
   to waangu_module, waangu_tree;
grant execute on function waangu.subtree(), waangu.visit(bigint[]) to waangu_tree;
-- Row policies are evaluated as the table's reader; FORCE makes the owner one too.
grant usage on schema waangu to waangu_owner;
grant execute on function waangu.tenant(), waangu.writer() to waangu_owner;

-- Whose statements others see, whose queries they can stop, and what they can leave behind. A writer's
-- advisory lock has its tenant's number, so the locks tell who works right now. A connection's prepared
-- statements and cursors show the text of those that served other tenants.
-- A query must not change its session either: SET is a command of its own, which a pool can tell by its
-- first word, and `set_config` hides anywhere.
revoke select on pg_stat_activity, pg_locks, pg_prepared_statements, pg_cursors from public;
revoke update on pg_settings from public;
-- By name, because signatures differ from version to version.
do $$
declare
    v_function regprocedure;
begin
    for v_function in
        select p.oid from pg_proc p
         where p.pronamespace = 'pg_catalog'::regnamespace
           and (p.proname in ('pg_stat_get_activity', 'pg_stat_get_backend_activity', 'pg_lock_status'
                            , 'pg_prepared_statement', 'pg_cursor', 'pg_cancel_backend'
                            , 'pg_terminate_backend', 'pg_notify', 'pg_logical_emit_message'
                            , 'lo_create', 'lo_creat', 'lo_from_bytea', 'lo_import'
                            , 'set_config', 'setseed')
                or p.proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$')
    loop
        execute format('revoke execute on function %s from public', v_function);
    end loop;
end $$;
grant execute on function pg_try_advisory_xact_lock_shared(bigint), set_config(text, text, boolean)
   to waangu_context;
