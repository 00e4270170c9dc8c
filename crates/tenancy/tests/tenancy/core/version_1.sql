-- The helper schema as version 1 of this platform made it, kept so that its upgrade is tried. Never changed.
-- The helper schema of every database that holds tenants, in all three tiers. Installed once, in the
-- template from which all of them are made.
--
-- Invariants:
--   * a row is visible only to a transaction that `waangu.enter` has sealed for the row's tenant;
--   * the seal can be set only by `enter`, and `enter` accepts only a proof that the gateway made;
--   * a row can be written only if the proof said so, whatever became of the transaction's settings;
--   * without a seal every tenant table is empty, and nothing can be written;
--   * a proof for a subtree seals only sessions of a `_tree` login, which no other proof seals.
--
-- The seal is a pair of sequences that modules may read (`currval`) but not set: `setval` on an
-- unlogged sequence takes no transaction id and writes no WAL, and `currval` is local to the
-- connection. It is bound to the transaction by its start time, doubled, plus one for a writer: what
-- `enter` sets besides is undone by ROLLBACK TO SAVEPOINT, and sequences are not. A subtree is sealed
-- by a third sequence, with the other seal broken, so that the ordinary path knows nothing of it.

revoke all on schema public from public;

create schema waangu authorization waangu_context;
grant usage on schema waangu to waangu_module, waangu_tree;

-- HMAC pads (RFC 2104) of the gateway's context keys. Two rows during a rotation.
create table waangu.context_key (
    kid integer primary key
  , ipad bytea not null
  , opad bytea not null
  , not_after timestamptz not null default 'infinity'
);

-- One row for each tenant whose data is here. The row is the fence: with another epoch or state, no
-- transaction of that tenant begins here.
create table waangu.home (
    tenant_id bigint primary key
  , state text not null check (state in ('active', 'suspended', 'moved'))
  , epoch bigint not null
);

-- Who may read whom besides itself: for each tenant that is at home here all its ancestors, itself
-- included, wherever those live. Written by the control plane.
create table waangu.closure (
    ancestor bigint not null
  , descendant bigint not null
  , primary key (ancestor, descendant)
);
create index closure_descendant on waangu.closure (descendant);

-- Which migrations of which module stand in which schema.
create table waangu.migration (
    schema_name text not null
  , module text not null
  , number integer not null
  , name text not null
  , applied_at timestamptz not null default now()
  , primary key (schema_name, module, number)
);

create unlogged sequence waangu.seal_tenant minvalue 0 start 0;
create unlogged sequence waangu.seal_time minvalue 0 start 0;
create unlogged sequence waangu.seal_tree minvalue 0 start 0;

alter table waangu.context_key owner to waangu_context;
alter table waangu.home owner to waangu_context;
alter table waangu.closure owner to waangu_context;
alter sequence waangu.seal_tenant owner to waangu_context;
alter sequence waangu.seal_time owner to waangu_context;
alter sequence waangu.seal_tree owner to waangu_context;
grant select on sequence waangu.seal_tenant, waangu.seal_time to waangu_module, waangu_tree;

-- This transaction's start, in microseconds since 1970. A double holds them exactly until 2255, and
-- costs a quarter of what `extract` does with its numeric.
create function waangu.transaction_time() returns bigint
language sql stable parallel safe
return (date_part('epoch', now()) * 1000000)::bigint;

-- Begins a tenant's transaction. Claims: v1|login|tenant|epoch|expires|r, w or t|actor|request, where
-- t reads the tenant's whole subtree.
create function waangu.enter(p_claims text, p_kid integer, p_mac text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_claim text[] := string_to_array(p_claims, '|');
    v_tenant bigint := v_claim[3];
    v_access text := v_claim[6];
    -- Writers hold this until they end, so that a relocation can wait for the last of them. Before
    -- the home row is read, which says whether the relocation is already over. What is not proved
    -- lets go of it at once, with the error.
    v_free boolean := v_access is distinct from 'w' or pg_try_advisory_xact_lock_shared(v_tenant);
    v_ipad bytea;
    v_opad bytea;
    v_state text;
    v_epoch bigint;
    v_sealed bigint;
    v_set text;
begin
    select k.ipad, k.opad, h.state, h.epoch into v_ipad, v_opad, v_state, v_epoch
      from waangu.context_key k
      left join waangu.home h on h.tenant_id = v_tenant
     where k.kid = p_kid and k.not_after > now();
    if v_ipad is null
       or encode(sha256(v_opad || sha256(v_ipad || convert_to(p_claims, 'UTF8'))), 'hex')
          is distinct from p_mac
       or v_claim[1] is distinct from 'v1'
       or v_claim[2] is distinct from session_user::text
       or v_claim[5]::bigint < date_part('epoch', clock_timestamp())
       or (v_access = 't') is distinct from session_user::text like 'waangu\_%\_tree'
    then
        raise insufficient_privilege using message = 'tenant context refused';
    end if;
    -- An older snapshot would not see that the tenant was frozen or has moved.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise insufficient_privilege using message = 'tenant context needs read committed';
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
    -- Assignments, because they need no plan and no executor.
    v_sealed := setval('waangu.seal_time'
                     , waangu.transaction_time() * 2 + (v_access = 'w')::integer);
    v_sealed := setval('waangu.seal_tenant', v_tenant);
    v_set := set_config('app.current_tenant', v_tenant::text, true)
          || set_config('app.actor', v_claim[7], true)
          || set_config('app.request', v_claim[8], true);
    -- For early and clear errors; last, because setval is refused in a read-only transaction.
    if v_access <> 'w' then
        v_set := set_config('transaction_read_only', 'on', true);
    end if;
end $$;

-- The rest of `enter` for a subtree. Its root need not be at home here, so its epoch says nothing; the
-- fence is the home row of each tenant below it (`subtree`).
create function waangu.enter_tree(p_tenant bigint, p_actor text, p_request text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    v_ignored bigint;
begin
    if exists (select from waangu.home where tenant_id = p_tenant and state = 'suspended') then
        raise exception using errcode = 'WG001', message = 'tenant is not here, retry';
    end if;
    v_ignored := setval('waangu.seal_time'::regclass, 0);
    v_ignored := setval('waangu.seal_tenant'::regclass, p_tenant);
    v_ignored := setval('waangu.seal_tree'::regclass, waangu.transaction_time());
    perform set_config('app.current_tenant', p_tenant::text, true)
          , set_config('app.actor', p_actor, true)
          , set_config('app.request', p_request, true)
          , set_config('transaction_read_only', 'on', true);
end $$;

-- The tenants that this transaction may read: those of the sealed subtree that are at home here and
-- open. Empty without a seal. `waangu.visit` may narrow it; nothing widens it.
create function waangu.subtree() returns bigint[]
language plpgsql stable parallel restricted security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_tenant bigint := nullif(current_setting('app.current_tenant', true), '')::bigint;
    v_visited bigint[] := nullif(current_setting('app.visit', true), '')::bigint[];
begin
    if v_tenant is null
       or currval('waangu.seal_tree'::regclass) is distinct from waangu.transaction_time()
       or currval('waangu.seal_tenant'::regclass) is distinct from v_tenant
    then
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
create function waangu.visit(p_tenants bigint[]) returns bigint[]
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('app.visit', p_tenants::text, true);
    return waangu.subtree();
end $$;

-- The tenant of this transaction, or null. The body is parsed once and its operators are bound by
-- OID, so a search_path set by an attacker changes nothing; the planner inlines it.
create function waangu.tenant() returns bigint
language sql volatile parallel restricted
return case
    when nullif(current_setting('app.current_tenant', true), '') is null then null
    when currval('waangu.seal_time'::regclass) / 2 = waangu.transaction_time()
     and currval('waangu.seal_tenant'::regclass)::text = current_setting('app.current_tenant', true)
    then currval('waangu.seal_tenant'::regclass)
end;

-- The same, but null unless the proof was for writing.
create function waangu.writer() returns bigint
language sql volatile parallel restricted
return case
    when nullif(current_setting('app.current_tenant', true), '') is null then null
    when currval('waangu.seal_time'::regclass) = waangu.transaction_time() * 2 + 1
     and currval('waangu.seal_tenant'::regclass)::text = current_setting('app.current_tenant', true)
    then currval('waangu.seal_tenant'::regclass)
end;

-- Runs a module's migration as the owner of tables. A function with its owner's rights, because
-- inside one PostgreSQL refuses COMMIT and any change of role: what a package says stays in the
-- caller's transaction and below the administrator's rights.
create function waangu.migrate(p_schema text, p_sql text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_table regclass;
begin
    -- No tenant has entered, so with FORCE a back-fill would change nothing, silently. `protect`
    -- puts it back in the same transaction.
    for v_table in
        select c.oid from pg_class c
         where c.relnamespace = to_regnamespace(quote_ident(p_schema))
           and c.relkind in ('r', 'p') and c.relforcerowsecurity
    loop
        execute format('alter table %s no force row level security', v_table);
    end loop;
    perform set_config('search_path', quote_ident(p_schema), true);
    execute p_sql;
    -- A deferred trigger would run at COMMIT, with the administrator's rights.
    set constraints all immediate;
end $$;

alter function waangu.transaction_time() owner to waangu_context;
alter function waangu.enter(text, integer, text) owner to waangu_context;
alter function waangu.enter_tree(bigint, text, text) owner to waangu_context;
alter function waangu.subtree() owner to waangu_context;
alter function waangu.visit(bigint[]) owner to waangu_context;
alter function waangu.tenant() owner to waangu_context;
alter function waangu.writer() owner to waangu_context;
alter function waangu.migrate(text, text) owner to waangu_owner;
revoke execute on all functions in schema waangu from public;
grant execute on function waangu.transaction_time(), waangu.enter(text, integer, text), waangu.tenant()
    , waangu.writer()
   to waangu_module, waangu_tree;
grant execute on function waangu.subtree(), waangu.visit(bigint[]) to waangu_tree;
-- Row policies are evaluated as the table's reader; FORCE makes the owner one too.
grant usage on schema waangu to waangu_owner;
grant execute on function waangu.transaction_time(), waangu.tenant(), waangu.writer() to waangu_owner;
grant select on sequence waangu.seal_tenant, waangu.seal_time to waangu_owner;

-- Whose statements others see, whose queries they can stop, and what they can leave behind. A writer's
-- advisory lock has its tenant's number, so the locks tell who works right now. A connection's prepared
-- statements and cursors show the text of those that served other tenants.
revoke select on pg_stat_activity, pg_locks, pg_prepared_statements, pg_cursors from public;
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
                            , 'lo_create', 'lo_creat', 'lo_from_bytea', 'lo_import')
                or p.proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$')
    loop
        execute format('revoke execute on function %s from public', v_function);
    end loop;
end $$;
grant execute on function pg_try_advisory_xact_lock_shared(bigint) to waangu_context;
;
-- The uniform rules of every table of a module, in all three tiers. Part of the helper schema.
--
-- Invariant: what a migration left behind is looked at after it ran; nothing is parsed beforehand.

-- The policies that stand on every table of the module with this login, and no others: the one place
-- that says so. `visible` and `writable` are USING and WITH CHECK, or null. The tenant's own path is an
-- equality; the subtree has a login and a policy of its own, so that it costs that path nothing.
create function waangu.policies(p_login text)
returns table (name text, command text, logins text[], visible text, writable text)
language sql immutable set search_path = pg_catalog, pg_temp as $$
select p.name, p.command, p.logins, p.visible, p.writable
  from (values
           ('tenant', 'select', array[p_login, 'waangu_owner']
          , 'tenant_id = (select waangu.tenant())', null)
         , ('tenant_insert', 'insert', array[p_login, 'waangu_owner']
          , null, 'tenant_id = (select waangu.writer())')
         , ('tenant_update', 'update', array[p_login, 'waangu_owner']
          , 'tenant_id = (select waangu.writer())', 'tenant_id = (select waangu.writer())')
         , ('tenant_delete', 'delete', array[p_login, 'waangu_owner']
          , 'tenant_id = (select waangu.writer())', null)
         , ('tree', 'select', array[p_login || '_tree']
          , 'tenant_id = any ((select waangu.subtree())::bigint[])', null)
       ) as p (name, command, logins, visible, writable)
$$;

-- The first rule that a module's schema breaks, in words for the module's author, or null.
create function waangu.broken_rule(p_schema text, p_append_only text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
with relation as (
    select c.* from pg_class c where c.relnamespace = to_regnamespace(quote_ident(p_schema))
)
, data as (
    select * from relation where relkind in ('r', 'p')
)
, rule (rank, what) as (
    select 1, format('table %I has no column tenant_id bigint not null', c.relname)
      from data c
     where not exists (select from pg_attribute a
                        where a.attrelid = c.oid and a.attname = 'tenant_id'
                          and a.atttypid = 'bigint'::regtype and a.attnotnull)
    union all
    select 2, format('%s %I does not begin with tenant_id'
                   , case when i.indisprimary then 'primary key'
                          when i.indisunique then 'unique index' else 'index' end
                   , x.relname)
      from data c
      join pg_index i on i.indrelid = c.oid
      join pg_class x on x.oid = i.indexrelid
     where not exists (select from pg_attribute a
                        where a.attrelid = c.oid and a.attname = 'tenant_id'
                          and a.attnum = i.indkey[0])
    union all
    select 3, format('foreign key %I does not begin with tenant_id on both sides', k.conname)
      from data c
      join pg_constraint k on k.conrelid = c.oid and k.contype = 'f'
     where not exists (select from pg_attribute a, pg_attribute b
                        where a.attrelid = k.conrelid and a.attnum = k.conkey[1]
                          and a.attname = 'tenant_id'
                          and b.attrelid = k.confrelid and b.attnum = k.confkey[1]
                          and b.attname = 'tenant_id')
    union all
    -- PostgreSQL carries out a foreign key's action with the owner's rights, past all grants.
    select 4, format('foreign key %I would change rows of the append-only table %I'
                   , k.conname, c.relname)
      from data c
      join pg_constraint k on k.conrelid = c.oid and k.contype = 'f'
     where c.relname = any (p_append_only)
       and not (k.confdeltype in ('a', 'r') and k.confupdtype in ('a', 'r'))
    union all
    select 5, format('append-only table %I does not exist', name)
      from unnest(p_append_only) as name
     where not exists (select from data where relname = name)
    union all
    select 6, format('%s %I is not allowed in a module'
                   , case c.relkind when 'm' then 'materialised view' when 'S' then 'sequence'
                          when 'f' then 'foreign table' else 'view without security_invoker' end
                   , c.relname)
      from relation c
     where c.relkind in ('m', 'f', 'S')
        or c.relkind = 'v' and not coalesce('security_invoker=true' = any (c.reloptions), false)
    union all
    select 7, format('function %s runs with its owner''s rights', p.oid::regprocedure)
      from pg_proc p
     where p.pronamespace = to_regnamespace(quote_ident(p_schema)) and p.prosecdef
    union all
    -- What such a function leaves in the session would wait there for the next tenant: pools.rs
    -- tells such statements by their first word, and sees only those that are sent.
    select 7, format('function %s runs dynamic SQL or a command that outlives its transaction'
                   , p.oid::regprocedure)
      from pg_proc p
     where p.pronamespace = to_regnamespace(quote_ident(p_schema))
       and p.prosrc ~* '\m(execute|prepare|deallocate|discard|listen|hold)\M'
    union all
    -- Each permissive policy adds rows to what the others show.
    select 8, format('policy %I of table %I is not allowed in a module', p.polname, c.relname)
      from data c
      join pg_policy p on p.polrelid = c.oid
     where p.polname not in (select name from waangu.policies(''))
    union all
    -- Both would run while the administrator removes a tenant's rows, with the administrator's rights.
    select 9, format('rule %I of table %I is not allowed in a module', r.rulename, c.relname)
      from data c
      join pg_rewrite r on r.ev_class = c.oid
    union all
    select 9, format('trigger %I of table %I must not be enabled always', t.tgname, c.relname)
      from data c
      join pg_trigger t on t.tgrelid = c.oid
     where t.tgenabled in ('A', 'R')
)
select what from rule order by rank, what limit 1
$$;

-- Takes back every right on a table that a migration gave away: TRUNCATE, for one, knows no rows.
create procedure waangu.revoke_grants(p_table regclass)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_grantee oid;
begin
    for v_grantee in
        select distinct g.grantee
          from pg_class c
             , lateral (select a.grantee from aclexplode(c.relacl) a
                        union
                        select a.grantee
                          from pg_attribute t, aclexplode(t.attacl) a
                         where t.attrelid = c.oid) g
         where c.oid = p_table and g.grantee <> c.relowner
    loop
        execute format('revoke all on %s from %s cascade', p_table
                     , case when v_grantee = 0 then 'public' else v_grantee::regrole::text end);
    end loop;
end $$;

-- Puts the uniform rules on every table of a module's schema, or refuses with the broken rule.
-- Idempotent; run by the control plane after a module's migrations.
create procedure waangu.protect(p_schema text, p_login text, p_append_only text[])
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_broken text := waangu.broken_rule(p_schema, p_append_only);
    v_tree text := p_login || '_tree';
    v_table record;
    v_policy record;
begin
    if v_broken is not null then
        raise exception using errcode = 'WG002', message = format('schema %s: %s', p_schema, v_broken);
    end if;

    execute format('grant usage on schema %I to %I, %I', p_schema, p_login, v_tree);
    for v_table in
        select c.oid::regclass as name, c.relname, c.relkind
          from pg_class c
         where c.relnamespace = to_regnamespace(quote_ident(p_schema)) and c.relkind in ('r', 'p', 'v')
    loop
        call waangu.revoke_grants(v_table.name);
        execute format('grant select on %s to %I, %I', v_table.name, p_login, v_tree);
        if v_table.relkind = 'v' then
            continue;
        end if;
        execute format('alter table %s enable row level security, force row level security'
                     , v_table.name);
        for v_policy in select * from waangu.policies(p_login) loop
            execute format('drop policy if exists %I on %s', v_policy.name, v_table.name);
            execute format('create policy %I on %s for %s to %s', v_policy.name, v_table.name
                         , v_policy.command
                         , (select string_agg(quote_ident(l), ', ') from unnest(v_policy.logins) l))
                 || coalesce(' using (' || v_policy.visible || ')', '')
                 || coalesce(' with check (' || v_policy.writable || ')', '');
        end loop;
        execute format(
            case when v_table.relname = any (p_append_only)
                 then 'grant insert on %s to %I'
                 else 'grant insert, update, delete on %s to %I' end
          , v_table.name, p_login);
    end loop;
end $$;
revoke execute on function waangu.policies(text), waangu.broken_rule(text, text[]) from public;
revoke execute on procedure waangu.revoke_grants(regclass), waangu.protect(text, text, text[]) from public;
