//! Schemas of one module that are made before anybody needs them, for tenants of the schema tier: taking
//! one is a change of its name, where making it takes each of its tables and policies.
//!
//! They stand in the bucket databases. What is in one says its name: the [`Recipe`], a number, the module.
//!
//! Invariants:
//! - a schema in stock has no tenant, and no module login may use it; made by one transaction, it is
//!   whole or not there;
//! - it is taken by one transaction that renames it, has its functions follow, notes its migrations
//!   under the new name and lets the module in: who dies before has taken nothing;
//! - whoever takes or discards one holds the row of its first migration, so of two one passes it by;
//! - nothing in it says its name but what follows the change: a package that writes it down is refused.
//!
//! Left out: which bucket databases there are, and which of them get how many.

use std::collections::HashSet;

use tokio_postgres::SimpleQueryMessage;
use waangu_identity::proof::Access;
use waangu_kernel::{Fault, ModuleId, fault};

use super::{Recipe, StockTurn};
use crate::admin::literal;
use crate::admin::package::{ModulePackage, upgrade_sql};
use crate::admin::{CellAdmin, column, quoted};
use crate::error::from_driver;

/// What all names in stock begin with. No module's schema does, because ids have no underscores, and no
/// tenant's.
const PREFIX: &str = "stock_";

/// Where a package has written its schema's name down, in `$1`, the only schema whose objects are shown
/// without it: what does not follow a change of the name. Search paths of functions do (see [`take_sql`]).
/// Every function and operator is named in full, because it runs on the search path of that schema. What is
/// said is read before it is searched: else the planner may read all that other schemas say, too, and wait for
/// whoever holds their tables.
const WRITTEN_DOWN: &str = "
with place as (
    select oid from pg_catalog.pg_namespace
     where nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
)
, relation as (
    select c.oid, c.relkind
      from pg_catalog.pg_class c
      join place p on p.oid operator(pg_catalog.=) c.relnamespace
)
, said (what) as materialized (
    select f.prosrc operator(pg_catalog.||) pg_catalog.pg_get_function_arguments(f.oid)
      from pg_catalog.pg_proc f
      join place p on p.oid operator(pg_catalog.=) f.pronamespace
     union all
    select t.typdefault
      from pg_catalog.pg_type t
      join place p on p.oid operator(pg_catalog.=) t.typnamespace
     union all
    select pg_catalog.pg_get_expr(d.adbin, d.adrelid)
      from pg_catalog.pg_attrdef d
      join relation r on r.oid operator(pg_catalog.=) d.adrelid
     union all
    select pg_catalog.pg_get_expr(k.conbin, k.conrelid)
      from pg_catalog.pg_constraint k
      join place p on p.oid operator(pg_catalog.=) k.connamespace
     union all
    select pg_catalog.pg_get_expr(e.expression, i.indrelid)
      from pg_catalog.pg_index i
      join relation r on r.oid operator(pg_catalog.=) i.indrelid
         , lateral (values (i.indexprs), (i.indpred)) e (expression)
     union all
    select pg_catalog.encode(t.tgargs, 'escape'::pg_catalog.text)
           operator(pg_catalog.||) coalesce(pg_catalog.pg_get_expr(t.tgqual, t.tgrelid), ''::pg_catalog.text)
      from pg_catalog.pg_trigger t
      join relation r on r.oid operator(pg_catalog.=) t.tgrelid
     union all
    select pg_catalog.pg_get_viewdef(r.oid)
      from relation r
     where r.relkind operator(pg_catalog.=) 'v'::pg_catalog.\"char\"
)
select exists (select from said
                where pg_catalog.strpos(what, $1::pg_catalog.text) operator(pg_catalog.>) 0::pg_catalog.int4)";

/// A schema in stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockedSchema {
    /// Its name.
    pub name: String,
    /// Whose tables it has.
    pub module: String,
}

impl Recipe {
    /// Whether a schema in stock was made by it.
    pub fn made_schema(&self, stocked: &StockedSchema) -> bool {
        stocked.name.starts_with(&self.schema_prefix())
    }

    /// What the schemas made by it are called, one after another.
    pub fn schema_names(&self, module: &ModuleId) -> impl Iterator<Item = String> {
        let prefix = self.schema_prefix();
        (1_u32..).map(move |number| format!("{prefix}{number}_{module}"))
    }

    fn schema_prefix(&self) -> String {
        format!("{PREFIX}{}_", self.0)
    }
}

impl CellAdmin {
    /// The schemas in stock of a bucket database.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_schema_stock(&self, bucket: i32) -> Result<Vec<StockedSchema>, Fault> {
        let sql = "select distinct schema_name, module from waangu.migration
                    where starts_with(schema_name, $1)
                    order by 1";
        let client = self.client(&database(bucket)).await?;
        let rows = client.query(sql, &[&PREFIX]).await;
        let rows = rows.map_err(from_driver)?;
        let read = |row| {
            Ok(StockedSchema {
                name: column(row, 0)?,
                module: column(row, 1)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Gives a schema in stock this name, and lets the module in; says whether the module's tables stand
    /// under that name now.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub(in crate::admin) async fn take_schema(
        &self,
        database: &str,
        package: &ModulePackage,
        schema: &str,
    ) -> Result<bool, Fault> {
        // Its first migration is what a schema in stock is known by.
        if package.migrations.is_empty() {
            return Ok(false);
        }
        let client = self.client(database).await?;
        match client.simple_query(&take_sql(schema, package)).await {
            Ok(answers) => Ok(answers.iter().any(
                |answer| matches!(answer, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")),
            )),
            // Then it is made as if there were no stock.
            Err(error) if error.as_db_error().is_some() => {
                tracing::warn!(database, schema, %error, "no schema could be taken from stock");
                Ok(false)
            }
            Err(error) => Err(from_driver(error)),
        }
    }
}

impl StockTurn<'_> {
    /// Makes one more schema with this package's tables in a bucket database.
    ///
    /// # Errors
    /// `module-manifest-invalid` when the package writes down the name of its schema, or breaks a rule of
    /// isolation; `internal` when a migration fails; `database-unavailable`.
    pub async fn make_schema(&self, bucket: i32, package: &ModulePackage) -> Result<(), Fault> {
        let there = self.admin.list_schema_stock(bucket).await?;
        let name = free_name(&Recipe::new(&[package]), package.id(), &there);
        // Of its own, because a server process never gives back what it remembers of schemas.
        let mut client = self.admin.visit(&database(bucket)).await?;
        let tx = client.transaction().await.map_err(from_driver)?;
        let login = Access::Write.login(package.id());
        let script = format!(
            "set local lock_timeout = '2s';
             {};
             revoke usage on schema {} from {login}, {login}_tree;
             set local search_path = {}",
            upgrade_sql(&name, package, 0),
            quoted(&name),
            quoted(&name),
        );
        tx.batch_execute(&script).await.map_err(from_driver)?;
        let row = tx.query_one(WRITTEN_DOWN, &[&name]).await;
        if column(&row.map_err(from_driver)?, 0)? {
            return Err(fault::MODULE_MANIFEST_INVALID.fault(format!(
                "module {} writes down the name of its schema, so it can't be made in advance",
                package.id()
            )));
        }
        tx.commit().await.map_err(from_driver)
    }

    /// Throws a schema in stock away; nothing happens if it has been taken, or is just being taken.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn discard_schema(&self, bucket: i32, schema: &StockedSchema) -> Result<(), Fault> {
        let mut client = self.admin.visit(&database(bucket)).await?;
        let tx = client.transaction().await.map_err(from_driver)?;
        let sql = "select from waangu.migration
                    where schema_name = $1 and module = $2 and number = 0
                      for update skip locked";
        let held = tx.query(sql, &[&schema.name, &schema.module]).await;
        if held.map_err(from_driver)?.is_empty() {
            return Ok(());
        }
        let script = format!(
            "set local lock_timeout = '2s';
             drop schema {} cascade;
             delete from waangu.migration where schema_name = {}",
            quoted(&schema.name),
            literal(&schema.name),
        );
        tx.batch_execute(&script).await.map_err(from_driver)?;
        tx.commit().await.map_err(from_driver)
    }
}

/// The first name that none of these has.
fn free_name(recipe: &Recipe, module: &ModuleId, there: &[StockedSchema]) -> String {
    let taken: HashSet<&str> = there.iter().map(|stocked| stocked.name.as_str()).collect();
    let mut names = recipe.schema_names(module);
    let free = names.find(|name| !taken.contains(name.as_str()));
    free.unwrap_or_default()
}

/// One transaction, which is one message. Its last row says whether the tables are there, all of them.
fn take_sql(schema: &str, package: &ModulePackage) -> String {
    let login = Access::Write.login(package.id());
    let (new, module) = (literal(schema), literal(package.id().as_str()));
    let prefix = literal(&Recipe::new(&[package]).schema_prefix());
    let steps = package.migrations.len();
    // A path may be pinned by `protect`, or by the migration itself (SET search_path FROM CURRENT). Names
    // in stock need no quotes, and nothing else begins like them.
    format!(
        "set local lock_timeout = '2s';
         do $take$
         declare
             v_old text;
             v_command text;
         begin
             perform pg_advisory_xact_lock(-3, hashtext({new}));
             if to_regnamespace(quote_ident({new})) is not null then
                 return;
             end if;
             select schema_name into v_old
               from waangu.migration
              where module = {module} and number = 0 and starts_with(schema_name, {prefix})
              limit 1
                for update skip locked;
             if v_old is null then
                 return;
             end if;
             execute format('alter schema %I rename to %I', v_old, {new});
             for v_command in
                 select format('alter routine %s set search_path = %s', p.oid::regprocedure
                             , replace(substr(c.setting, length('search_path=') + 1), v_old, quote_ident({new})))
                   from pg_proc p, unnest(p.proconfig) as c (setting)
                  where p.pronamespace = to_regnamespace(quote_ident({new}))
                    and starts_with(c.setting, 'search_path=')
                    and position(v_old in c.setting) > 0
             loop
                 execute v_command;
             end loop;
             update waangu.migration set schema_name = {new} where schema_name = v_old;
             execute format('grant usage on schema %I to {login}, {login}_tree', {new});
         end $take$;
         select count(*) = {steps} from waangu.migration where schema_name = {new} and module = {module}"
    )
}

fn database(bucket: i32) -> String {
    format!("waangu_schema_{bucket}")
}
