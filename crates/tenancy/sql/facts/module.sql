-- What stands in the modules' schemas, as facts (see `src/inspect.rs`): kind, module, facts, objects. Objects
-- with the same facts come as one row, so that a thousand tenants' schemas are as short as one.
-- A schema in stock (`src/admin/stock/schemas.rs`) is of a kind of its own, because nobody may use it.
-- A rule that each module keeps in its own way (its keys, its indexes) is a fact only when broken.
-- No table is opened whose policies are the pattern's: a move holds those that it fills for as long as that
-- takes, and each new connection to the database would wait for it.
-- $1: the modules; $2: whether to look at these only; $3: append-only tables, `module.table`.
with role as (
    select oid, rolname::text
         , rolsuper or oid = (select datdba from pg_database where datname = current_database()) as rolsuper
      from pg_roles
     union all
    select 0, 'public', false
)
, place as (
    select n.oid, n.nspname::text, n.nspowner, n.nspacl, m.module, 'waangu_' || m.module as login
         , case when s.module is null then 'schema' else 'schema in stock' end as kind
      from pg_namespace n
         , lateral (select substring(n.nspname from '^stock_[0-9a-f]{16}_[0-9]+_([a-z][a-z0-9]*)$')) s (module)
         , lateral (select coalesce(s.module, substring(n.nspname from '^t_[0-9]+_([a-z][a-z0-9]*)$')
                                  , n.nspname::text)) m (module)
     where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'public', 'waangu', 'waangu_migration')
       -- Where moves note how far they are: nobody's but the administrator's.
       and not (n.nspname = 'waangu_relocation' and n.nspacl is null)
       and (not $2 or m.module = any ($1::text[]))
)
, relation as (
    select c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.reloptions, c.relrowsecurity
         , c.relforcerowsecurity, p.nspname, p.module, p.login
         , format('%I.%I', p.nspname, c.relname) as object
         , case when c.relkind = 'v' then 'view'
                when p.module || '.' || c.relname = any ($3::text[]) then 'append-only table'
                -- A module's next version may stand beside this one, and have such tables that this one
                -- does not know. Fewer rights than expected let nobody in.
                when $2 and not exists (select from aclexplode(c.relacl) a
                                         where a.privilege_type in ('UPDATE', 'DELETE')
                                           and a.grantee <> c.relowner)
                then 'append-only table'
                else 'table' end as kind
      from place p
      join pg_class c on c.relnamespace = p.oid and c.relkind in ('r', 'p', 'v')
)
, data as (
    select * from relation where relkind <> 'v'
)
, odd as materialized (
    -- Read once, however few schemas the planner has heard of.
    select oid, relname, relkind, relnamespace from pg_class where relkind in ('m', 'f', 'S')
)
, pattern as materialized (
    -- As it is kept, and without where in its statement each word was found. Its only column is tenant_id.
    select p.polname, p.polqual::text as qual, p.polwithcheck::text as with_check
         , regexp_replace(p.polqual::text, ':location -?\d+', '', 'g') as qual_words
         , regexp_replace(p.polwithcheck::text, ':location -?\d+', '', 'g') as with_check_words
         , pg_get_expr(p.polqual, p.polrelid) as visible
         , pg_get_expr(p.polwithcheck, p.polrelid) as writable
      from pg_policy p
      join pg_attribute a on a.attrelid = p.polrelid and a.attname = 'tenant_id' and a.attnum = 1
     where p.polrelid = to_regclass('waangu.pattern')
)
, policy as (
    select p.*, d.kind, d.module, d.object, d.login, w.polname is not null as is_known, w.visible, w.writable
      from data d
      join pg_policy p on p.polrelid = d.oid
      left join pg_attribute a on a.attrelid = d.oid and a.attname = 'tenant_id'
      left join pattern w
        on w.polname = p.polname
       and case when a.attnum = 1 and w.qual is not distinct from p.polqual::text
                 and w.with_check is not distinct from p.polwithcheck::text then true
                else regexp_replace(w.qual_words, ':(varattno|varattnosyn) 1 ', format(':\1 %s ', a.attnum), 'g')
                     is not distinct from regexp_replace(p.polqual::text, ':location -?\d+', '', 'g')
                 and regexp_replace(w.with_check_words, ':(varattno|varattnosyn) 1 ', format(':\1 %s ', a.attnum), 'g')
                     is not distinct from regexp_replace(p.polwithcheck::text, ':location -?\d+', '', 'g')
           end
)
, granted as (
    select p.kind, p.module, quote_ident(p.nspname) as object, p.login, 'schema ' as what
         , '' as col, '' as cols, a.*, p.nspowner as owner
      from place p, aclexplode(p.nspacl) a
     union all
    select r.kind, r.module, r.object, r.login, '', '', '', a.*, r.relowner
      from relation r, aclexplode(r.relacl) a
     union all
    select r.kind, r.module, r.object, r.login, '', format(' of column %I', t.attname), format(' (%I)', t.attname)
         , a.*, r.relowner
      from relation r
      join pg_attribute t on t.attrelid = r.oid and t.attacl is not null
         , aclexplode(t.attacl) a
)
, routine as (
    select p.kind, p.module, p.nspname, f.oid, f.prosecdef, f.proleakproof, f.prolang
      from place p
      join pg_proc f on f.pronamespace = p.oid
)
, owned (kind, module, object, what, owner) as (
    select kind, module, quote_ident(nspname), 'schema', nspowner from place
     union all
    select kind, module, object, case relkind when 'v' then 'view' else 'table' end, relowner from relation
)
, fact (kind, module, object, aspect, value, redo, undo) as (
    -- The first part fixes the columns' types; `name` would cut what is longer than 63 bytes.
    select o.kind, o.module, o.object, 'owner', case when r.rolsuper then '{administrator}' else r.rolname end
         , format('alter %s {object} owner to waangu_owner', o.what), null
      from owned o
      join role r on r.oid = o.owner
     union all
    select g.kind, g.module, g.object, format('right %s%s of %s', g.privilege_type, g.col, n.grantee)
         , case when g.is_grantable then 'may be passed on' else 'plain' end
         , format('grant %s%s on %s{object} to %s', g.privilege_type, g.cols, g.what, n.grantee)
         , format('revoke %s%s on %s{object} from %s cascade', g.privilege_type, g.cols, g.what, n.grantee)
      from granted g
      join role r on r.oid = g.grantee
         , lateral (select case when r.rolname in (g.login, g.login || '_tree')
                                then '{login}' || substr(r.rolname, length(g.login) + 1)
                                else quote_ident(r.rolname) end) n (grantee)
     where g.grantee <> g.owner
     union all
    select p.kind, p.module, quote_ident(p.nspname), 'module', 'is not installed', null, 'drop schema {object}'
      from place p
     where p.module <> all ($1::text[])
     union all
    select p.kind, p.module, quote_ident(p.nspname), format('%s %I', k.what, c.relname), 'is there'
         , null
         , case when c.relkind = 'S' and d.deptype = 'i'
                then format('alter table %s alter %I drop identity', d.refobjid::regclass, t.attname)
                else format('drop %s %I.%I cascade', k.what, p.nspname, c.relname) end
      from odd c
      join place p on p.oid = c.relnamespace
      left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid
                           and d.deptype in ('a', 'i') and d.refobjsubid > 0
      left join pg_attribute t on t.attrelid = d.refobjid and t.attnum = d.refobjsubid
         , lateral (select case c.relkind when 'm' then 'materialized view' when 'S' then 'sequence'
                                          else 'foreign table' end) k (what)
     union all
    select kind, module, quote_ident(nspname), format('routine %s', oid::regprocedure)
         , 'runs with its owner''s rights', null
         , format('alter routine %s security invoker', oid::regprocedure)
      from routine
     where prosecdef
     union all
    -- It would be run before the policies, on everybody's rows.
    select kind, module, quote_ident(nspname), format('routine %s ', oid::regprocedure)
         , 'is said to be leakproof', null
         , format('alter routine %s not leakproof', oid::regprocedure)
      from routine
     where proleakproof
     union all
    select r.kind, r.module, quote_ident(r.nspname), format('routine %s  ', r.oid::regprocedure)
         , 'is in the untrusted language ' || l.lanname, null
         , format('drop routine %s cascade', r.oid::regprocedure)
      from routine r
      join pg_language l on l.oid = r.prolang and not l.lanpltrusted and l.lanname <> 'sql'
     union all
    select kind, module, object, 'row-level security'
         , case when relrowsecurity and relforcerowsecurity then 'enabled and forced'
                when relrowsecurity then 'not forced' when relforcerowsecurity then 'not enabled'
                else 'off' end
         , 'alter table {object} enable row level security, force row level security', null
      from data
     union all
    select p.kind, p.module, p.object, format('policy %I', p.polname)
         , format('%s for %s to %s%s%s', s.mode, s.command, s.roles, s.visible, s.writable)
         , format('create policy %I on {object} as %s for %s to %s%s%s'
                , p.polname, s.mode, s.command, s.roles, s.visible, s.writable)
         , format('drop policy %I on {object}', p.polname)
      from policy p
         , lateral (
            select case when p.polpermissive then 'permissive' else 'restrictive' end
                 , case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                                 when 'd' then 'delete' else 'all' end
                 , coalesce(' using (' || case when p.is_known then p.visible
                                               else pg_get_expr(p.polqual, p.polrelid) end || ')', '')
                 , coalesce(' with check (' || case when p.is_known then p.writable
                                                    else pg_get_expr(p.polwithcheck, p.polrelid) end || ')', '')
                 , (select string_agg(case when r.rolname in (p.login, p.login || '_tree')
                                           then '{login}' || substr(r.rolname, length(p.login) + 1)
                                           else quote_ident(r.rolname) end, ', ' order by r.rolname = 'waangu_owner', r.rolname)
                      from role r where r.oid = any (p.polroles))
           ) s (mode, command, visible, writable, roles)
     union all
    select d.kind, d.module, d.object, 'column tenant_id'
         , format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
         , 'alter table {object} alter tenant_id type bigint, alter tenant_id set not null', null
      from data d
      join pg_attribute a on a.attrelid = d.oid and a.attname = 'tenant_id'
     union all
    select d.kind, d.module, d.object, 'default of tenant_id', x.value, null
         , 'alter table {object} alter tenant_id set default waangu.tenant()'
      from data d
      join pg_attribute a on a.attrelid = d.oid and a.attname = 'tenant_id'
      join pg_attrdef v on v.adrelid = d.oid and v.adnum = a.attnum
         , lateral (select case when a.attgenerated = '' then pg_get_expr(v.adbin, 0)
                                else pg_get_expr(v.adbin, v.adrelid) end) x (value)
     where a.attgenerated <> '' or x.value <> 'waangu.tenant()'
     union all
    select d.kind, d.module, d.object, format('index %I', x.relname)
         , case when i.indisvalid then 'does not begin with tenant_id' else 'is not valid' end, null
         , case when not i.indisvalid then format('reindex index %I.%I', d.nspname, x.relname)
                when k.conname is null then format('drop index %I.%I', d.nspname, x.relname)
                else format('alter table {object} drop constraint %I', k.conname) end
      from data d
      join pg_index i on i.indrelid = d.oid
      join pg_class x on x.oid = i.indexrelid
      left join pg_constraint k on k.conindid = x.oid and k.conrelid = d.oid and k.contype in ('p', 'u', 'x')
     where not i.indisvalid
        or not exists (select from pg_attribute a
                        where a.attrelid = d.oid and a.attname = 'tenant_id' and a.attnum = i.indkey[0])
     union all
    select d.kind, d.module, d.object, format('foreign key %I', k.conname)
         , case when not k.convalidated then 'is not validated'
                when acts then 'changes rows of an append-only table'
                else 'does not begin with tenant_id on both sides' end
         , null
         , format('alter table {object} %s constraint %I'
                , case when k.convalidated then 'drop' else 'validate' end, k.conname)
      from data d
      join pg_constraint k on k.conrelid = d.oid and k.contype = 'f'
         , lateral (select d.kind = 'append-only table'
                       and not (k.confdeltype in ('a', 'r') and k.confupdtype in ('a', 'r'))) x (acts)
     where acts or not k.convalidated
        or not exists (select from pg_attribute a, pg_attribute b
                        where a.attrelid = k.conrelid and a.attnum = k.conkey[1] and a.attname = 'tenant_id'
                          and b.attrelid = k.confrelid and b.attnum = k.confkey[1] and b.attname = 'tenant_id')
     union all
    select d.kind, d.module, d.object, format('rule %I', r.rulename), 'is there', null
         , format('drop rule %I on {object}', r.rulename)
      from data d
      join pg_rewrite r on r.ev_class = d.oid
     union all
    select d.kind, d.module, d.object, format('trigger %I', t.tgname)
         , case t.tgenabled when 'D' then 'is disabled' else 'runs under replication, too' end, null
         , format('alter table {object} enable trigger %I', t.tgname)
      from data d
      join pg_trigger t on t.tgrelid = d.oid and t.tgenabled <> 'O'
     union all
    select kind, module, object, 'security_invoker'
         , case when 'security_invoker=true' = any (reloptions) then 'true' else 'false' end
         , 'alter view {object} set (security_invoker = true)', null
      from relation
     where relkind = 'v'
)
, described as (
    select kind, module, object
         , jsonb_agg(jsonb_build_array(aspect, value, redo, undo) order by aspect) as facts
      from fact
     group by kind, module, object
)
select kind, module, facts, array_agg(object order by object) as objects
  from described
 group by kind, module, facts
