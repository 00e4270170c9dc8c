-- Everything of a schema that the module's programs can name or rely on, one row each: its kind, its
-- name, what about it must stay as it is, and the columns that it is about. Given the schema.
with relation as (
    select c.oid, c.relname, c.relkind
      from pg_class c
     where c.relnamespace = to_regnamespace(quote_ident($1))
       and c.relkind in ('r', 'p', 'v', 'm', 'S')
)
select 'relation' as kind
     , r.relname::text as object
     , case r.relkind when 'p' then 'r' else r.relkind end::text as trait
     , '' as width
     , '{}'::text[] as columns
  from relation r
union all
-- Type and collation stay; the length may grow. A written column may not become one that isn't.
select 'column'
     , r.relname || '.' || a.attname
     , format_type(a.atttypid, null)
       || case when a.attcollation <> t.typcollation
               then ' collate ' || a.attcollation::regcollation::text else '' end
       || case a.attgenerated when '' then '' else ' generated' end
       || case a.attidentity when 'a' then ' identity' else '' end
     , a.atttypmod::text
     , array[r.relname || '.' || a.attname]
  from relation r
  join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
 where r.relkind <> 'S'
union all
select 'not-null'
     , r.relname || '.' || a.attname
     , ''
     , ''
     , array[r.relname || '.' || a.attname]
  from relation r
  join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped and a.attnotnull
 where r.relkind in ('r', 'p')
union all
-- What fills a column that an INSERT does not name.
select 'default'
     , r.relname || '.' || a.attname
     , ''
     , ''
     , array[r.relname || '.' || a.attname]
  from relation r
  join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
   and (a.atthasdef or a.attidentity <> '')
 where r.relkind in ('r', 'p')
union all
-- A rule of rows. What it is about are its columns; an expression's are not known here, so all are.
select case c.contype when 'c' then 'check' when 'f' then 'foreign key' else 'exclusion' end
     , r.relname || '.' || c.conname
     , replace(pg_get_constraintdef(c.oid), quote_ident($1) || '.', '')
     , ''
     , (select coalesce(array_agg(r.relname || '.' || a.attname order by a.attname), '{}')
          from pg_attribute a
         where a.attrelid = r.oid and a.attnum = any (c.conkey))
  from relation r
  join pg_constraint c on c.conrelid = r.oid and c.contype in ('c', 'f', 'x') and c.conparentid = 0
union all
-- Its name is what a program tells a duplicate by, its columns what ON CONFLICT names.
select 'unique'
     , r.relname || '.' || x.relname
     , replace(substring(pg_get_indexdef(i.indexrelid) from ' USING .*$'), quote_ident($1) || '.', '')
     , case when i.indnullsnotdistinct then 'alike' else '' end
     , (select coalesce(array_agg(r.relname || '.' || a.attname order by a.attname), '{}')
          from pg_attribute a
         where a.attrelid = r.oid and a.attnum = any (i.indkey))
  from relation r
  join pg_index i on i.indrelid = r.oid and i.indisunique
  join pg_class x on x.oid = i.indexrelid
union all
select 'trigger'
     , r.relname || '.' || t.tgname
     , ''
     , ''
     , '{}'
  from relation r
  join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
union all
select 'function'
     , p.proname || '(' || replace(pg_get_function_identity_arguments(p.oid), quote_ident($1) || '.', '') || ')'
     , replace(coalesce(pg_get_function_result(p.oid), 'procedure'), quote_ident($1) || '.', '')
     , ''
     , '{}'
  from pg_proc p
 where p.pronamespace = to_regnamespace(quote_ident($1))
union all
select 'type'
     , t.typname::text
     , t.typtype::text
     , ''
     , '{}'
  from pg_type t
 where t.typnamespace = to_regnamespace(quote_ident($1)) and t.typtype in ('e', 'd')
union all
select 'label'
     , t.typname || '.' || e.enumlabel
     , ''
     , ''
     , '{}'
  from pg_type t
  join pg_enum e on e.enumtypid = t.oid
 where t.typnamespace = to_regnamespace(quote_ident($1))
union all
select 'check'
     , t.typname || '.' || c.conname
     , pg_get_constraintdef(c.oid)
     , ''
     , array[t.typname::text]
  from pg_type t
  join pg_constraint c on c.contypid = t.oid
 where t.typnamespace = to_regnamespace(quote_ident($1))
 order by 1, 2
