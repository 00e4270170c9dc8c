-- What stands in the helper schemas and in `public`, as facts: kind, module, facts, objects.
with role as (
    select oid
         , case when rolsuper or oid = (select datdba from pg_database where datname = current_database())
                then '{administrator}' else quote_ident(rolname) end as name
      from pg_roles
     union all
    select 0, 'public'
)
, place as (
    select oid, nspname, nspowner, nspacl from pg_namespace
     where nspname in ('waangu', 'waangu_migration', 'public')
)
, relation as (
    select c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.relpersistence, c.relrowsecurity
         , p.nspname, k.what, format('%s %I.%I', k.what, p.nspname, c.relname) as object
         , format('%I.%I', p.nspname, c.relname) as name
      from place p
      join pg_class c on c.relnamespace = p.oid and c.relkind not in ('i', 'I', 'c')
         , lateral (select case c.relkind when 'S' then 'sequence' when 'v' then 'view'
                                when 'm' then 'materialized view' when 'f' then 'foreign table'
                                else 'table' end) k (what)
)
, routine as (
    select f.*, k.what, format('%s %s', k.what, f.oid::regprocedure) as object
      from place p
      join pg_proc f on f.pronamespace = p.oid
         , lateral (select case f.prokind when 'p' then 'procedure' when 'a' then 'aggregate'
                                          else 'function' end) k (what)
)
, granted as (
    select 'schema ' || quote_ident(p.nspname) as object, p.nspowner as owner, '' as cols, a.*
      from place p, aclexplode(p.nspacl) a
     union all
    select r.object, r.relowner, '', a.* from relation r, aclexplode(r.relacl) a
     union all
    select r.object, r.relowner, format(' (%I)', t.attname), a.*
      from relation r
      join pg_attribute t on t.attrelid = r.oid, aclexplode(t.attacl) a
     union all
    select f.object, f.proowner, '', a.*
      from routine f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
)
, owned (object, owner, undo) as (
    select 'schema ' || quote_ident(nspname), nspowner, null from place
     union all
    select object, relowner, format('drop %s cascade', object) from relation
     union all
    select object, proowner, format('drop %s cascade', object) from routine
)
, fact (object, aspect, value, redo, undo) as (
    select o.object, 'owner', r.name, format('alter %s owner to %s', o.object, r.name), null
      from owned o
      join role r on r.oid = o.owner
     union all
    select object, 'object', 'is there', null, undo from owned
     union all
    select g.object, format('right %s%s of %s', g.privilege_type, g.cols, r.name)
         , case when g.is_grantable then 'may be passed on' else 'plain' end
         , format('grant %s%s on %s to %s', g.privilege_type, g.cols, g.object, r.name)
         , format('revoke %s%s on %s from %s cascade', g.privilege_type, g.cols, g.object, r.name)
      from granted g
      join role r on r.oid = g.grantee
     where g.grantee <> g.owner
     union all
    select r.object, format('column %I', a.attname)
         , format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
           || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
         , format('alter table %s alter %I set %s', r.name, a.attname
                , coalesce('default ' || pg_get_expr(d.adbin, d.adrelid), 'not null'))
         , format('alter table %s alter %I drop default', r.name, a.attname)
      from relation r
      join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
     where r.what = 'table'
     union all
    select r.object, format('constraint %I', k.conname), pg_get_constraintdef(k.oid)
         , format('alter table %s add constraint %I %s', r.name, k.conname, pg_get_constraintdef(k.oid))
         , format('alter table %s drop constraint %I cascade', r.name, k.conname)
      from relation r
      join pg_constraint k on k.conrelid = r.oid and k.contype in ('c', 'f', 'p', 'u', 'x')
     union all
    select r.object, format('index %I', x.relname), pg_get_indexdef(x.oid), pg_get_indexdef(x.oid)
         , format('drop index %s', x.oid::regclass)
      from relation r
      join pg_index i on i.indrelid = r.oid
      join pg_class x on x.oid = i.indexrelid
     where not exists (select from pg_constraint k where k.conindid = x.oid and k.conrelid = r.oid)
     union all
    select object, 'row-level security', 'enabled', null
         , format('alter table %s disable row level security', name)
      from relation
     where relrowsecurity
     union all
    -- The pattern of all modules' policies.
    select r.object, format('policy %I', p.polname)
         , format('%s for %s to %s%s%s', s.mode, s.command, s.roles, s.visible, s.writable)
         , format('create policy %I on %s as %s for %s to %s%s%s'
                , p.polname, r.name, s.mode, s.command, s.roles, s.visible, s.writable)
         , format('drop policy %I on %s', p.polname, r.name)
      from relation r
      join pg_policy p on p.polrelid = r.oid
         , lateral (
            select case when p.polpermissive then 'permissive' else 'restrictive' end
                 , case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                                 when 'd' then 'delete' else 'all' end
                 , coalesce(' using (' || pg_get_expr(p.polqual, p.polrelid) || ')', '')
                 , coalesce(' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')
                 , (select string_agg(o.name, ', ' order by o.name) from role o where o.oid = any (p.polroles))
           ) s (mode, command, visible, writable, roles)
     union all
    select r.object, format('trigger %I', t.tgname), 'is there', null
         , format('drop trigger %I on %s', t.tgname, r.name)
      from relation r
      join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
     union all
    select r.object, format('rule %I', w.rulename), 'is there', null
         , format('drop rule %I on %s', w.rulename, r.name)
      from relation r
      join pg_rewrite w on w.ev_class = r.oid and w.rulename <> '_RETURN'
     union all
    select object, 'storage', case relpersistence when 'u' then 'unlogged' else 'logged' end
         , format('alter %s set %s', object, case relpersistence when 'u' then 'unlogged' else 'logged' end)
         , null
      from relation
     where what in ('sequence', 'table')
     union all
    select r.object, 'range'
         , format('%s to %s by %s, cache %s%s', s.seqmin, s.seqmax, s.seqincrement, s.seqcache
                , case when s.seqcycle then ', cycles' else '' end)
         , format('alter %s as bigint minvalue %s maxvalue %s increment %s cache %s %s', r.object
                , s.seqmin, s.seqmax, s.seqincrement, s.seqcache
                , case when s.seqcycle then 'cycle' else 'no cycle' end)
         , null
      from relation r
      join pg_sequence s on s.seqrelid = r.oid
     union all
    -- The body as PostgreSQL understands it: an operator of another schema would show its name.
    select object, 'body'
         , format('%s, returns %s, md5 %s', l.lanname, pg_get_function_result(r.oid)
                , md5(coalesce(pg_get_function_sqlbody(r.oid), prosrc)))
         , format('%s; revoke all on %s from public', pg_get_functiondef(r.oid), object), null
      from routine r
      join pg_language l on l.oid = r.prolang
     where prokind <> 'a'
     union all
    select r.object, v.aspect, v.value, format('alter %s %s', r.object, v.redo), null
      from routine r
         , lateral (values
              ('runs with the rights of', case when prosecdef then 'its owner' else 'its caller' end
             , case when prosecdef then 'security definer' else 'security invoker' end)
            , ('settings', coalesce(array_to_string(proconfig, '; '), 'none')
             , coalesce(nullif((select string_agg(format('set %s = %s', split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)), ' ')
                           from unnest(proconfig) c), ''), 'reset all'))
           ) v (aspect, value, redo)
     where prokind <> 'a'
     union all
    select r.object, v.aspect, v.value, format('alter %s %s', r.object, v.value), null
      from routine r
         , lateral (values
              ('volatility', case provolatile when 'v' then 'volatile' when 's' then 'stable'
                                              else 'immutable' end)
            , ('parallel', case proparallel when 's' then 'parallel safe' when 'r' then 'parallel restricted'
                                            else 'parallel unsafe' end)
            , ('leakproof', case when proleakproof then 'leakproof' else 'not leakproof' end)
            , ('null', case when proisstrict then 'strict' else 'called on null input' end)
           ) v (aspect, value)
     where prokind = 'f'
     union all
    select format('type %s', t.oid::regtype), 'made by hand', 'is there', null
         , format('drop type %s cascade', t.oid::regtype)
      from place p
      join pg_type t on t.typnamespace = p.oid and t.typtype <> 'b'
      left join pg_class c on c.oid = t.typrelid
     where coalesce(c.relkind, 'c') = 'c'
     union all
    select format('operator %s', o.oid::regoperator), 'made by hand', 'is there', null
         , format('drop operator %s cascade', o.oid::regoperator)
      from pg_operator o
     where o.oid >= 16384
       and o.oprnamespace in (select oid from place union select 'pg_catalog'::regnamespace)
)
select object as kind, '' as module
     , jsonb_agg(jsonb_build_array(aspect, value, redo, undo) order by aspect) as facts
     , array[object] as objects
  from fact
 group by object
