-- The uniform rules of every table of a module, in all three tiers. Part of the helper schema.
--
-- Invariant: what a migration left behind is looked at after it ran; nothing is parsed beforehand.

-- The policies that stand on every table of the module with this login, and no others: the one place
-- that says so. `visible` and `writable` are USING and WITH CHECK, or null. The tenant's own path is an
-- equality; the subtree has a login and a policy of its own, so that it costs that path nothing.
create or replace function waangu.policies(p_login text)
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
create or replace function waangu.broken_rule(p_schema text, p_append_only text[]) returns text
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
    -- tells such statements by their first word, and sees only those that are sent. Looked for are
    -- words that no honest code has, and words at the beginning of a command, in what is left without
    -- strings, quoted names and comments. A body in SQL's own form (BEGIN ATOMIC) can't hold any.
    select 7, format('function %s says "%s", which runs dynamic SQL or outlives its transaction'
                   , p.oid::regprocedure, lower(coalesce(x.anywhere[1], x.at_start[1])))
      from pg_proc p
         , lateral (select regexp_replace(p.prosrc
                         , $re$\m[eE]'([^'\\]|''|\\.)*'|'([^']|'')*'|"([^"]|"")*"|--[^\n\r]*|/\*([^*]|\*+[^*/])*\*+/$re$
                         , ' ', 'g')) s (code)
         , lateral (select regexp_match(s.code, '\m(execute|set_config|setseed|with\s+hold)\M', 'i')
                         , regexp_match(s.code, '(?:^|;|>>|\m(?:begin|then|else|loop)\M)\s*'
                                   '(set|reset|do(?!\s+nothing\M)|load(?=\s*(?:;|$))|prepare|deallocate|discard|listen)\M(?!\s*:?=)', 'i')
                   ) x (anywhere, at_start)
     where p.pronamespace = to_regnamespace(quote_ident(p_schema))
       and coalesce(x.anywhere, x.at_start) is not null
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
create or replace procedure waangu.revoke_grants(p_table regclass)
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
create or replace procedure waangu.protect(p_schema text, p_login text, p_append_only text[])
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_broken text := waangu.broken_rule(p_schema, p_append_only);
    v_tree text := p_login || '_tree';
    v_table record;
    v_policy record;
    v_function record;
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
    -- PL/pgSQL looks up the types of variables once in a session, in the path of the first caller. That may be
    -- another tenant of the bucket, and its types are not this schema's.
    for v_function in
        select p.oid::regprocedure as name
          from pg_proc p
          join pg_language l on l.oid = p.prolang
         where p.pronamespace = to_regnamespace(quote_ident(p_schema)) and l.lanname = 'plpgsql'
    loop
        execute format('alter routine %s set search_path = %I', v_function.name, p_schema);
    end loop;
end $$;
revoke execute on function waangu.policies(text), waangu.broken_rule(text, text[]) from public;
revoke execute on procedure waangu.revoke_grants(regclass), waangu.protect(text, text, text[]) from public;
