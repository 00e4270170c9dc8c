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

-- The statement that puts one of these policies on a table. What stands before the expressions is filled up
-- to one length, because PostgreSQL keeps with an expression how far from the statement's beginning it was
-- found: so it keeps the same text for all tables whose first column is tenant_id, and `look` compares it as
-- it is. Longer than that it can't get: a name has 63 bytes at most, twice as many if all are quotes.
create or replace function waangu.policy_statement(
    p_table text, p_name text, p_command text, p_logins text[], p_visible text, p_writable text)
returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
select head || repeat(' ', 1024 - octet_length(head))
    || coalesce(' using (' || p_visible || ')', '')
    || coalesce(' with check (' || p_writable || ')', '')
  from format('create policy %I on %s for %s to %s', p_name, p_table, p_command
            , (select string_agg(quote_ident(l), ', ') from unnest(p_logins) l)) head
$$;

-- A table without rows and rights that has the policies of every table, for its two groups instead of a
-- module's two logins: what PostgreSQL makes of their text.
create table if not exists waangu.pattern (tenant_id bigint not null);
do $$
declare
    v_policy record;
begin
    for v_policy in select polname from pg_policy where polrelid = 'waangu.pattern'::regclass loop
        execute format('drop policy %I on waangu.pattern', v_policy.polname);
    end loop;
    for v_policy in select * from waangu.policies('waangu_module') loop
        execute waangu.policy_statement('waangu.pattern', v_policy.name, v_policy.command
            , array_replace(v_policy.logins, 'waangu_module_tree', 'waangu_tree')
            , v_policy.visible, v_policy.writable);
    end loop;
end $$;

-- Looks at a module's schema: the first rule that it breaks, in words for the module's author, or null;
-- whether everything in it has the rights, policies and search paths that `protect` gives; and the tables on
-- which row-level security is not forced, which `migrate` may have left so.
--
-- What it costs grows with the tables of this schema, not with the database's: a bucket has 400 schemas,
-- and no index of pg_class or pg_proc begins with the schema. So the schema's objects are those that
-- depend on it. Nothing escapes that:
--   * PostgreSQL writes down that every table, view, sequence, materialised and foreign table, partition and
--     routine depends on its schema (heap_create_with_catalog, ProcedureCreate), whoever owns it, also as a
--     member of an extension, and moves that with SET SCHEMA; only superusers could delete it, and they need
--     not. Exempt are schemas with pinned objects: a module has none of these.
--   * What depends on its table instead is found by the table: indexes, those of partitioned tables, too
--     (pg_index), constraints, triggers, rules, policies, columns. TOAST tables lie in pg_toast, composite types
--     have no rows.
-- The look for drift goes by pg_class.relnamespace, every hour.
--
-- In PL/pgSQL because that plans once for a connection; the settings have the plan go through indexes,
-- also if it was made when the catalogue was small, or nothing was known of it.
create or replace function waangu.look(
    p_schema text, p_login text, p_append_only text[]
  , out broken text, out whole boolean, out unforced regclass[])
language plpgsql stable set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_schema oid := to_regnamespace(quote_ident(p_schema));
    v_login oid := to_regrole(quote_ident(p_login));
    v_tree oid := to_regrole(quote_ident(p_login || '_tree'));
    v_path text := 'search_path=' || quote_ident(p_schema);
begin
    with relation as materialized (
        select c.oid, c.relname, c.relkind, c.reltype, c.relowner, c.relacl, c.reloptions
             , c.relrowsecurity, c.relforcerowsecurity
             , a.attnum as tenant, a.atttypid = 'bigint'::regtype and a.attnotnull as is_sound
          from pg_depend d
          join pg_class c on c.oid = d.objid
          left join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
         where d.refclassid = 'pg_namespace'::regclass
           and d.refobjid = v_schema
           and d.classid = 'pg_class'::regclass
    )
    , data as materialized (
        select * from relation where relkind in ('r', 'p')
    )
    , routine as materialized (
        select p.oid, p.prosecdef, p.prosrc, p.proconfig, p.prolang
          from pg_depend d
          join pg_proc p on p.oid = d.objid
         where d.refclassid = 'pg_namespace'::regclass
           and d.refobjid = v_schema
           and d.classid = 'pg_proc'::regclass
    )
    , named_type as materialized (
        -- Not those of tables.
        select t.oid, t.typtype, t.typrelid
          from pg_depend d
          join pg_type t on t.oid = d.objid
         where d.refclassid = 'pg_namespace'::regclass
           and d.refobjid = v_schema
           and d.classid = 'pg_type'::regclass
    )
    , foreign_key as materialized (
        select k.*, c.relname, c.tenant
          from data c
          join pg_constraint k on k.conrelid = c.oid and k.contype = 'f'
    )
    , pattern as materialized (
        -- Put together anew, so that each is unpacked once.
        select p.polname, p.polcmd, p.polqual::text || '' as qual, p.polwithcheck::text || '' as with_check
             , pg_get_expr(p.polqual, p.polrelid) as visible
             , pg_get_expr(p.polwithcheck, p.polrelid) as writable
             , (select array_agg(case r when 'waangu_module'::regrole then v_login
                                        when 'waangu_tree'::regrole then v_tree else r end)
                  from unnest(p.polroles) r) as roles
          from pg_policy p
         where p.polrelid = 'waangu.pattern'::regclass
    )
    , policy as materialized (
        -- What is kept in the same words for the same column is the same, and need not be read.
        select c.oid as relid, c.relname, p.polname, w.polname is not null as is_known
             , coalesce(p.polcmd = w.polcmd and p.polpermissive
                        and p.polroles @> w.roles and p.polroles <@ w.roles
                        and case when c.tenant = 1
                                  and p.polqual::text is not distinct from w.qual
                                  and p.polwithcheck::text is not distinct from w.with_check then true
                                 else pg_get_expr(p.polqual, p.polrelid) is not distinct from w.visible
                                  and pg_get_expr(p.polwithcheck, p.polrelid) is not distinct from w.writable
                            end, false) as is_right
          from data c
          join pg_policy p on p.polrelid = c.oid
          left join pattern w on w.polname = p.polname
    )
    , rule (rank, what) as (
        select 1, format('table %I has no column tenant_id bigint not null', c.relname)
          from data c
         where c.is_sound is not true
        union all
        select 2, format('%s %I does not begin with tenant_id'
                       , case when i.indisprimary then 'primary key'
                              when i.indisunique then 'unique index' else 'index' end
                       , x.relname)
          from data c
          join pg_index i on i.indrelid = c.oid and i.indkey[0] is distinct from c.tenant
          join pg_class x on x.oid = i.indexrelid
        union all
        select 3, format('foreign key %I does not begin with tenant_id on both sides', k.conname)
          from foreign_key k
         where k.conkey[1] is distinct from k.tenant
            or not exists (select from pg_attribute b
                            where b.attrelid = k.confrelid and b.attnum = k.confkey[1]
                              and b.attname = 'tenant_id')
        union all
        -- PostgreSQL carries out a foreign key's action with the owner's rights, past all grants.
        select 4, format('foreign key %I would change rows of the append-only table %I'
                       , k.conname, k.relname)
          from foreign_key k
         where k.relname = any (p_append_only)
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
          from routine p
         where p.prosecdef
        union all
        -- What such a function leaves in the session would wait there for the next tenant: pools.rs
        -- tells such statements by their first word, and sees only those that are sent. Looked for are
        -- words that no honest code has, and words at the beginning of a command, in what is left without
        -- strings, quoted names and comments. A body in SQL's own form (BEGIN ATOMIC) can't hold any.
        select 7, format('function %s says "%s", which runs dynamic SQL or outlives its transaction'
                       , p.oid::regprocedure, lower(coalesce(x.anywhere[1], x.at_start[1])))
          from routine p
             , lateral (select regexp_replace(p.prosrc
                             , $re$\m[eE]'([^'\\]|''|\\.)*'|'([^']|'')*'|"([^"]|"")*"|--[^\n\r]*|/\*([^*]|\*+[^*/])*\*+/$re$
                             , ' ', 'g')) s (code)
             , lateral (select regexp_match(s.code, '\m(execute|set_config|setseed|with\s+hold)\M', 'i')
                             , regexp_match(s.code, '(?:^|;|>>|\m(?:begin|then|else|loop)\M)\s*'
                                       '(set|reset|do(?!\s+nothing\M)|load(?=\s*(?:;|$))|prepare|deallocate|discard|listen)\M(?!\s*:?=)', 'i')
                       ) x (anywhere, at_start)
         where coalesce(x.anywhere, x.at_start) is not null
        union all
        -- Each permissive policy adds rows to what the others show.
        select 8, format('policy %I of table %I is not allowed in a module', p.polname, p.relname)
          from policy p
         where not p.is_known
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
        union all
        -- Whoever plans a query, copies rows or removes them evaluates these, the administrator, too.
        -- PostgreSQL's own functions and operators are pinned: nothing is noted to depend on them. A type of
        -- another schema may have a check that does, and is not looked at here.
        select 10, format(case when d.refclassid = 'pg_type'::regclass
                               then '%s has a type of another schema'
                               else '%s calls a function of a module, which others would run with their rights' end
                        , pg_describe_object(e.classid, e.objid, 0))
          from (
                select 'pg_class'::regclass::oid as classid, c.oid as objid, false as only_types from data c
                union all
                select 'pg_class'::regclass, i.indexrelid, false from data c join pg_index i on i.indrelid = c.oid
                union all
                select 'pg_constraint'::regclass, k.oid, false
                  from data c
                  join pg_constraint k on k.conrelid = c.oid and k.contype in ('c', 'x')
                union all
                select 'pg_attrdef'::regclass, v.oid, false
                  from data c
                  join pg_attrdef v on v.adrelid = c.oid
                  join pg_attribute a on a.attrelid = c.oid and a.attnum = v.adnum and a.attgenerated <> ''
                union all
                select 'pg_statistic_ext'::regclass, x.oid, false
                  from data c
                  join pg_statistic_ext x on x.stxrelid = c.oid
                union all
                select 'pg_constraint'::regclass, k.oid, false
                  from named_type t
                  join pg_constraint k on k.contypid = t.oid
                union all
                -- A domain may have a default as a column may.
                select 'pg_type'::regclass, t.oid, t.typtype <> 'r' from named_type t
                union all
                select 'pg_class'::regclass, t.typrelid, true from named_type t where t.typrelid <> 0
               ) e
             , lateral (select d.refclassid, d.refobjid
                          from pg_depend d
                         where d.classid = e.classid and d.objid = e.objid and d.refobjid >= 16384
                        offset 0) d
         where case when d.refclassid = 'pg_type'::regclass
                    then exists (select from pg_type y where y.oid = d.refobjid and y.typnamespace <> v_schema)
                    else not e.only_types
                     and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_cast'::regclass) end
        union all
        -- Of another schema's domains only what this transaction did. OFFSET has each looked up: else the
        -- planner may begin with all that depends on a function, which are thousands in a bucket.
        select 10, format('%s is not of this schema', pg_describe_object('pg_constraint'::regclass, k.oid, 0))
          from pg_constraint k
         where k.contypid > '0'::oid
           and k.connamespace <> v_schema
           and age(k.xmin) <= age(pg_current_xact_id_if_assigned()::xid)
           and exists (select from pg_depend d
                        where d.classid = 'pg_constraint'::regclass and d.objid = k.oid and d.refobjid >= 16384
                          and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
                       offset 0)
        union all
        -- The administrator's own queries could mean them.
        select 11, format('%s is not allowed in a module', pg_describe_object(d.classid, d.objid, 0))
          from pg_depend d
         where d.refclassid = 'pg_namespace'::regclass
           and d.refobjid = v_schema
           and d.classid not in ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass
                               , 'pg_statistic_ext'::regclass)
        union all
        select 11, format('%s is not allowed in a module', pg_describe_object(d.classid, d.objid, 0))
          from (select t.oid from named_type t
                union all
                select y.oid
                  from relation c
                  join pg_type t on t.oid = c.reltype, lateral (values (t.oid), (t.typarray)) y (oid)) t
          join pg_depend d on d.refclassid = 'pg_type'::regclass and d.refobjid = t.oid
                          and d.classid = 'pg_cast'::regclass
    )
    , rights as (
        -- Most tables have the same.
        select k.wanted
             , (select array_agg(case g.grantee when v_login then 'own ' when v_tree then 'tree ' else 'other ' end
                                 || g.privilege_type || case when g.is_grantable then '!' else '' end)
                  from aclexplode(k.relacl) g
                 where g.grantee <> k.relowner) as granted
          from (select distinct c.relacl, c.relowner
                     , case when c.relkind = 'v' then array['own SELECT', 'tree SELECT']
                            when c.relname = any (p_append_only)
                            then array['own INSERT', 'own SELECT', 'tree SELECT']
                            else array['own DELETE', 'own INSERT', 'own SELECT', 'own UPDATE', 'tree SELECT']
                       end as wanted
                  from relation c
                 where c.relkind in ('r', 'p', 'v')) k
    )
    select (select what from rule order by rank, what limit 1)
         , exists (select from pg_namespace n
                    where n.oid = v_schema
                      and (select array_agg(case g.grantee when v_login then 'own ' when v_tree then 'tree '
                                                           else 'other ' end
                                            || g.privilege_type || case when g.is_grantable then '!' else '' end
                                            order by g.grantee = v_tree)
                             from aclexplode(n.nspacl) g
                            where g.grantee <> n.nspowner) = array['own USAGE', 'tree USAGE'])
           and not exists (select from rights
                            where (granted @> wanted and granted <@ wanted) is not true)
           and not exists (select from relation c
                             join pg_attribute a on a.attrelid = c.oid and a.attacl is not null)
           and not exists (select from data where not relrowsecurity)
           -- A table has no two of one name, so if all are right none has more than the pattern.
           and not exists (select from policy where not is_right)
           and (select count(*) from policy) = (select count(*) from data) * (select count(*) from pattern)
           and not exists (select from routine p
                             join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
                            where (v_path = any (p.proconfig)) is not true)
         , array(select oid::regclass from data where not relforcerowsecurity)
      into broken, whole, unforced;
end $$;

-- The first rule that a module's schema breaks, or null. Control planes of version 3 make a statement out of
-- this text.
create or replace function waangu.broken_rule(p_schema text, p_append_only text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
select l.broken from waangu.look(p_schema, null, p_append_only) l where l.broken is not null
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

-- Puts the uniform rules on every table of a module's schema, or refuses with the broken rule. Where all
-- but FORCE is there already, that is all that it does. Idempotent; run by the control plane after a
-- module's migrations.
create or replace procedure waangu.protect(p_schema text, p_login text, p_append_only text[])
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_left text;
    v_look record;
    v_name regclass;
    v_grantee oid;
    v_tree text := p_login || '_tree';
    v_table record;
    v_policy record;
    v_function record;
begin
    -- A name that the control plane thinks is its own statement's would run what the migration says; a cursor
    -- that outlives the transaction is run by COMMIT. Both with the administrator's rights.
    if exists (select from pg_prepared_statements where from_sql)
       or exists (select from pg_cursors where is_holdable)
    then
        raise exception using errcode = 'WG002'
            , message = format('schema %s: a prepared statement or a cursor is left in the session', p_schema);
    end if;
    -- What is deferred runs at COMMIT, and `set constraints` in a trigger defers what that brings about. An
    -- event can only be of a table whose rows this transaction has changed, and keeps its trigger as it is.
    select format('table %s has a deferrable constraint or trigger (%s), so no migration can change its rows'
                , t.tgrelid::regclass, t.tgname)
      into v_left
      from pg_locks l
      join pg_trigger t on t.tgrelid = l.relation and t.tgdeferrable
     where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.mode = 'RowExclusiveLock'
     limit 1;
    -- All schemas have one owner, and only this one is looked at below.
    if v_left is null then
        select format('%s is not of this schema, so no migration can change it', c.oid::regclass)
          into v_left
          from pg_locks l
          join pg_class c on c.oid = l.relation
         where l.pid = pg_backend_pid() and l.locktype = 'relation'
           and l.mode not in ('AccessShareLock', 'RowShareLock')
           and c.relowner = 'waangu_owner'::regrole
           and c.relnamespace not in (to_regnamespace(quote_ident(p_schema)), 'pg_toast'::regnamespace)
         limit 1;
    end if;
    if v_left is not null then
        raise exception using errcode = 'WG002', message = format('schema %s: %s', p_schema, v_left);
    end if;
    select * into v_look from waangu.look(p_schema, p_login, p_append_only);
    if v_look.broken is not null then
        raise exception using errcode = 'WG002', message = format('schema %s: %s', p_schema, v_look.broken);
    end if;
    if v_look.whole then
        foreach v_name in array v_look.unforced loop
            execute format('alter table %s force row level security', v_name);
        end loop;
        return;
    end if;

    for v_grantee in
        select distinct g.grantee
          from pg_namespace n, aclexplode(n.nspacl) g
         where n.oid = to_regnamespace(quote_ident(p_schema)) and g.grantee <> n.nspowner
    loop
        execute format('revoke all on schema %I from %s cascade', p_schema
                     , case when v_grantee = 0 then 'public' else v_grantee::regrole::text end);
    end loop;
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
            execute waangu.policy_statement(v_table.name::text, v_policy.name, v_policy.command
                                          , v_policy.logins, v_policy.visible, v_policy.writable);
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
revoke execute on function waangu.policies(text), waangu.broken_rule(text, text[])
    , waangu.policy_statement(text, text, text, text[], text, text), waangu.look(text, text, text[]) from public;
revoke execute on procedure waangu.revoke_grants(regclass), waangu.protect(text, text, text[]) from public;
