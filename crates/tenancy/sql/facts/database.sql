-- What surrounds the tables: logins, database, catalogues, extensions; as facts: kind, module, facts, objects.
-- $1: the modules; $2: whether to look at these only; $3: not used.
with role as (
    select r.oid, r.rolname::text, a.rolsuper
         , case when a.rolsuper then '{administrator}' else quote_ident(r.rolname) end as name
      from pg_roles r
         , lateral (select r.rolsuper or r.oid = (select datdba from pg_database
                                                   where datname = current_database())) a (rolsuper)
     union all
    select 0, 'public', false, 'public'
)
, fixed (name) as (
    values ('waangu_owner'), ('waangu_context'), ('waangu_module'), ('waangu_tree')
)
, login as (
    -- Every role that may become `waangu_module`, and the logins that ought to.
    select r.oid, r.rolname::text, n.module, case when n.tree then 'login for reading' else 'login' end as kind
      from pg_roles r
         , lateral (select regexp_replace(r.rolname, '^waangu_|_tree$', '', 'g'), r.rolname ~ '_tree$') n (module, tree)
     where r.rolname not in (select name from fixed)
       and (n.module = any ($1::text[]) and r.rolname ~ '^waangu_'
            or not $2 and exists (select from pg_auth_members m
                                   where m.member = r.oid and m.roleid in ('waangu_module'::regrole, 'waangu_tree'::regrole)))
)
, watched as (
    select kind, oid, rolname, '{object}' as name, module from login
     union all
    select 'role ' || f.name, r.oid, f.name, f.name, ''
      from fixed f
      join pg_roles r on r.rolname = f.name
)
, catalogue (what, object, oid, class, acl, initial) as (
    select case c.relkind when 'v' then 'view' else 'table' end, c.oid::regclass::text, c.oid
         , 'pg_class'::regclass, coalesce(c.relacl, acldefault('r', c.relowner))
         , coalesce(i.initprivs, acldefault('r', c.relowner))
      from pg_class c
      left join pg_init_privs i on i.classoid = 'pg_class'::regclass and i.objoid = c.oid and i.objsubid = 0
     where c.relnamespace = 'pg_catalog'::regnamespace and c.relacl is distinct from i.initprivs
       and c.relkind in ('r', 'v') and c.oid < 16384
     union all
    -- PostgreSQL 17 gave this one a fourth argument with a default.
    select 'function'
         , regexp_replace(f.oid::regprocedure::text
                        , '^(pg_logical_emit_message\(boolean,text,(text|bytea)),boolean\)$', '\1)')
         , f.oid, 'pg_proc'::regclass
         , coalesce(f.proacl, acldefault('f', f.proowner)), coalesce(i.initprivs, acldefault('f', f.proowner))
      from pg_proc f
      left join pg_init_privs i on i.classoid = 'pg_proc'::regclass and i.objoid = f.oid
     where f.pronamespace = 'pg_catalog'::regnamespace and f.proacl is distinct from i.initprivs
       and f.oid < 16384
)
, fact (kind, object, aspect, value, redo, undo) as (
    select w.kind, w.rolname, 'attributes', a.list, format('alter role %s %s', w.name, a.list), null
      from watched w
      join pg_roles r on r.oid = w.oid
         , lateral (select concat_ws(' ', case when rolcanlogin then 'login' else 'nologin' end
                         , case when rolsuper then 'superuser' else 'nosuperuser' end
                         , case when rolbypassrls then 'bypassrls' else 'nobypassrls' end
                         , case when rolcreatedb then 'createdb' else 'nocreatedb' end
                         , case when rolcreaterole then 'createrole' else 'nocreaterole' end
                         , case when rolreplication then 'replication' else 'noreplication' end
                         , case when rolinherit then 'inherit' else 'noinherit' end)) a (list)
     union all
    -- A share of the server's, so that others get some; how much is left to who configures the server.
    select w.kind, w.rolname, 'connections'
         , case when r.rolconnlimit >= 0 and r.rolconnlimit < current_setting('max_connections')::integer
                then 'limited' else 'not limited' end
         , format('do $$ begin execute format(''alter role %s connection limit %%s'''
                  ', current_setting(''max_connections'')::integer / 2); end $$', w.name)
         , null
      from watched w
      join pg_roles r on r.oid = w.oid
     where w.kind like 'login%'
     union all
    select w.kind, w.rolname, format('member of %s', g.name)
         , case when m.admin_option then 'with admin option' else 'plain' end
         , format('grant %s to %s', g.name, w.name), format('revoke %s from %s cascade', g.name, w.name)
      from watched w
      join pg_auth_members m on m.member = w.oid
      join role g on g.oid = m.roleid
     union all
    select w.kind, w.rolname, format('has member %s', g.name), 'plain', null
         , format('revoke %s from %s cascade', w.name, g.name)
      from watched w
      join pg_auth_members m on m.roleid = w.oid
      join role g on g.oid = m.member
     where w.rolname not in ('waangu_module', 'waangu_tree') and not g.rolsuper
     union all
    select w.kind, w.rolname, format('setting %s%s', s.name, coalesce(' in database ' || quote_ident(d.datname), ''))
         , replace(s.value, w.module, '{module}')
         , format('alter role %s set %s = %s', w.name, s.name, replace(s.value, w.module, '{module}'))
         , format('alter role %s%s reset %s', w.name, coalesce(' in database ' || quote_ident(d.datname), ''), s.name)
      from watched w
      join pg_db_role_setting p on p.setrole = w.oid
      left join pg_database d on d.oid = p.setdatabase
         , unnest(p.setconfig) c
         , lateral (select split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)) s (name, value)
     union all
    select w.kind, w.rolname, format('owns %s', o.what), 'is there', null
         , case when p.classid = 'pg_database'::regclass
                then format('alter %s owner to {administrator}', o.what)
                else format('reassign owned by %s to waangu_owner', w.name) end
      from watched w
      join pg_shdepend p on p.refclassid = 'pg_authid'::regclass and p.refobjid = w.oid and p.deptype = 'o'
                        and p.classid <> 'pg_default_acl'::regclass
                        and p.dbid in (0, (select oid from pg_database where datname = current_database()))
         , lateral (select coalesce((select 'database ' || quote_ident(datname) from pg_database
                                      where p.classid = 'pg_database'::regclass and oid = p.objid)
                                  , pg_describe_object(p.classid, p.objid, 0))) o (what)
     where w.kind like 'login%'
     union all
    select 'database', '{database}', format('right %s of %s', a.privilege_type, r.name), 'plain'
         , format('grant %s on database {database} to %s', a.privilege_type, r.name)
         , format('revoke %s on database {database} from %s cascade', a.privilege_type, r.name)
      from pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
      join role r on r.oid = a.grantee
     where d.datname = current_database() and a.grantee <> d.datdba
     union all
    select 'database', '{database}', format('setting %s', split_part(c, '=', 1))
         , substr(c, strpos(c, '=') + 1), null
         , format('alter database {database} reset %s', split_part(c, '=', 1))
      from pg_db_role_setting p, unnest(p.setconfig) c
     where p.setrole = 0 and p.setdatabase = (select oid from pg_database where datname = current_database())
     union all
    -- The control plane's own and PostgreSQL's: a login could stop other sessions from there.
    select format('database %I', d.datname), '', format('right %s of %s', a.privilege_type, r.name)
         , 'plain', null
         , format('revoke %s on database %I from %s', a.privilege_type, d.datname, r.name)
      from pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
      join role r on r.oid = a.grantee
     where not $2 and d.datallowconn and d.datname !~ '^waangu(_schema_[0-9]+|_t_[0-9]+)?$'
       and (a.grantee = 0 or r.oid in (select oid from watched))
     union all
    select format('%s %s', c.what, c.object), c.object, 'rights', coalesce(now.list, 'none')
         , format('revoke all on %s from public', c.object_sql) || coalesce('; ' || now.grants, '')
         , concat_ws('; ', now.revokes, was.grants)
      from (select *, case what when 'function' then 'function ' || object else object end as object_sql
              from catalogue) c
         , lateral (select string_agg(format('%s of %s', a.privilege_type, r.name), ', ' order by r.name, a.privilege_type)
                         , string_agg(format('grant %s on %s to %s', a.privilege_type, c.object_sql, r.name), '; '
                                      order by r.name, a.privilege_type)
                         , string_agg(distinct format('revoke all on %s from %s cascade', c.object_sql, r.name), '; ')
                      from aclexplode(c.acl) a join role r on r.oid = a.grantee
                     where not r.rolsuper) now (list, grants, revokes)
         , lateral (select string_agg(format('%s of %s', a.privilege_type, r.name), ', ' order by r.name, a.privilege_type)
                         , string_agg(format('grant %s on %s to %s', a.privilege_type, c.object_sql, r.name), '; ')
                      from aclexplode(c.initial) a join role r on r.oid = a.grantee
                     where not r.rolsuper) was (list, grants)
     where now.list is distinct from was.list
     union all
    select format('table %s', a.attrelid::regclass), a.attrelid::regclass::text
         , format('right %s of column %I of %s', x.privilege_type, a.attname, r.name), 'plain', null
         , format('revoke %s (%I) on %s from %s', x.privilege_type, a.attname, a.attrelid::regclass, r.name)
      from pg_attribute a
      join pg_class c on c.oid = a.attrelid and c.relnamespace = 'pg_catalog'::regnamespace
      left join pg_init_privs i on i.classoid = 'pg_class'::regclass and i.objoid = a.attrelid and i.objsubid = a.attnum
         , aclexplode(a.attacl) x
      join role r on r.oid = x.grantee
     where a.attacl is distinct from i.initprivs
     union all
    select format('routine %s', f.oid::regprocedure), '', 'of PostgreSQL'
         , case when f.oid >= 16384 then 'is made by hand' else 'runs with its owner''s rights' end, null
         , case when f.oid >= 16384 then format('drop routine %s cascade', f.oid::regprocedure)
                else format('alter routine %s security invoker', f.oid::regprocedure) end
      from pg_proc f
     where f.pronamespace in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
       and (f.oid >= 16384 or f.prosecdef)
     union all
    select format('relation %s', c.oid::regclass), '', 'of PostgreSQL', 'is made by hand', null
         , format('drop %s %s cascade', case c.relkind when 'v' then 'view' else 'table' end, c.oid::regclass)
      from pg_class c
     where c.relnamespace in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
       and c.oid >= 16384 and c.relkind in ('r', 'v')
     union all
    select format('extension %s', extname), '', 'extension', 'installed', format('create extension %I', extname)
         , format('drop extension %I cascade', extname)
      from pg_extension
     union all
    select format('language %s', lanname), '', 'language', case when lanpltrusted then 'trusted' else 'untrusted' end
         , null, format('drop language %I cascade', lanname)
      from pg_language
     union all
    select format('foreign-data wrapper %s', fdwname), '', 'foreign data', 'is there', null
         , format('drop foreign data wrapper %I cascade', fdwname)
      from pg_foreign_data_wrapper
     union all
    select format('event trigger %s', evtname), '', 'event trigger', 'is there', null
         , format('drop event trigger if exists %I', evtname)
      from pg_event_trigger
     union all
    select format('publication %s', pubname), '', 'publication', 'is there', null
         , format('drop publication %I', pubname)
      from pg_publication
     where pubname !~ '^waangu_'
     union all
    select format('cast from %s to %s', format_type(castsource, null), format_type(casttarget, null)), '', 'cast'
         , 'is made by hand', null
         , format('drop cast (%s as %s)', format_type(castsource, null), format_type(casttarget, null))
      from pg_cast
     where oid >= 16384 and castsource < 16384 and casttarget < 16384
     union all
    select 'large objects', '', format('large object %s', oid), 'is there', null
         , format('select lo_unlink(%s)', oid)
      from pg_largeobject_metadata
     union all
    select format('parameter %s', p.parname), '', format('right %s of %s', a.privilege_type, r.name), 'plain'
         , format('grant %s on parameter %s to %s', a.privilege_type, p.parname, r.name)
         , format('revoke %s on parameter %s from %s', a.privilege_type, p.parname, r.name)
      from pg_parameter_acl p, aclexplode(p.paracl) a
      join role r on r.oid = a.grantee
     where not r.rolsuper
     union all
    select format('default privileges of %s', d.defaclrole::regrole), ''
         , format('right %s on %s of %s%s', a.privilege_type, k.what, r.name, coalesce(' in schema ' || n.nspname, ''))
         , 'plain', null
         , format('alter default privileges for role %s%s revoke %s on %s from %s', d.defaclrole::regrole
                , coalesce(' in schema ' || quote_ident(n.nspname), ''), a.privilege_type, k.what, r.name)
      from pg_default_acl d
      left join pg_namespace n on n.oid = d.defaclnamespace
         , aclexplode(d.defaclacl) a
      join role r on r.oid = a.grantee
         , lateral (select case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences'
                                when 'f' then 'functions' when 'T' then 'types' else 'schemas' end) k (what)
     where a.grantee <> d.defaclrole
       -- A login may say this of itself, but makes nothing. It must not stop other modules by it.
       and (not $2 or d.defaclrole::regrole::text !~ '^waangu_'
            or d.defaclrole in (select to_regrole(name) from fixed))
)
, described as (
    select kind, coalesce((select l.module from login l where l.rolname = object), '') as module
         , coalesce(nullif(object, ''), kind) as object
         , jsonb_agg(jsonb_build_array(aspect, value, redo, undo) order by aspect) as facts
      from fact
     group by kind, object
)
select kind, module, facts, array_agg(object order by object) as objects
  from described
 group by kind, module, facts
