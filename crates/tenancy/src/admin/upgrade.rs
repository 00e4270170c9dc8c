//! Bringing many namespaces of one database to a package, one transaction for each.
//!
//! What it costs is what bounds a fleet, so a namespace takes three round trips: the migrations; a look
//! at the catalogue whether every table still has the uniform rules; and the commit, with
//! `waangu.protect` before it only if a table has not.
//!
//! Invariants:
//! - after the commit every rule of isolation holds: `waangu.broken_rule` is asked, and a table whose
//!   policies or rights differ in anything from what `waangu.policies` says is protected anew;
//! - a namespace whose migration fails is as it was;
//! - no statement waits for a lock or runs longer than the limits say.

use std::collections::HashMap;
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::try_join;
use tokio_postgres::Statement;
use waangu_identity::proof::Access;
use waangu_kernel::{Fault, fault};

use super::package::{literal, migration_sql, protection_sql};
use super::{CellAdmin, ModulePackage};
use crate::error::from_driver;

/// Namespaces after which a connection is closed: a server process never gives back the catalogue
/// memory of the schemas it has seen (data-plane design §4).
const LIFE: usize = 200;

/// Which tables of a schema lack what, given the login and the append-only tables. Policies are compared
/// as PostgreSQL writes them back, without brackets, spaces and its `AS name`; whatever differs in more
/// than that counts as different.
const CHECK: &str = r"
with wanted as (
    select p.name
         , case p.command when 'select' then 'r' when 'insert' then 'a' when 'update' then 'w' else 'd' end
           as command
         , (select array_agg(l::regrole::oid order by l::regrole::oid) from unnest(p.logins) l) as roles
         , regexp_replace(p.visible, '[() ]', '', 'g') as visible
         , regexp_replace(p.writable, '[() ]', '', 'g') as writable
      from waangu.policies($2) p
)
, relation as (
    select c.* from pg_class c
     where c.relnamespace = to_regnamespace(quote_ident($1)) and c.relkind in ('r', 'p', 'v')
)
, kind as (
    -- One table's policies are mostly another's: those that are the same inside, on the same column, are
    -- written out once.
    select p.polname::text as name, p.polcmd::text as command, p.polpermissive as permissive, p.polroles
         , p.polqual::text, p.polwithcheck::text, array_agg(p.polrelid) as tables, min(p.oid) as example
      from pg_policy p
      join relation c on c.oid = p.polrelid
      left join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
     group by 1, 2, 3, 4, 5, 6, a.attnum
)
, policy as (
    select k.name, k.command, k.permissive, k.tables
         , (select array_agg(r order by r) from unnest(k.polroles) r) as roles
         , lower(regexp_replace(regexp_replace(pg_get_expr(e.polqual, e.polrelid), ' AS [a-z]+', '', 'g')
                              , '[() ]', '', 'g')) as visible
         , lower(regexp_replace(regexp_replace(pg_get_expr(e.polwithcheck, e.polrelid), ' AS [a-z]+', '', 'g')
                              , '[() ]', '', 'g')) as writable
      from kind k
      join pg_policy e on e.oid = k.example
)
, matching as (
    select polrelid, count(*) filter (where w.name is not null) as right_ones, count(*) as all_of_them
      from policy p
      left join wanted w on w.name = p.name and w.command = p.command and w.roles = p.roles
                        and p.permissive
                        and w.visible is not distinct from p.visible
                        and w.writable is not distinct from p.writable
         , unnest(p.tables) as polrelid
     group by polrelid
)
, granted as (
    select c.oid
         , array_agg(case g.grantee when $2::regrole then 'own ' when ($2 || '_tree')::regrole then 'tree '
                          else 'other ' end || g.privilege_type || case when g.is_grantable then '!' else '' end
                     order by 1) as rights
      from relation c, aclexplode(c.relacl) g
     where g.grantee <> c.relowner
     group by c.oid
)
, state as (
    select c.oid, c.relkind, c.relforcerowsecurity
         , g.rights is not null
           and g.rights <@ rights.wanted and rights.wanted <@ g.rights
           and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attacl is not null)
           and (c.relkind = 'v'
                or c.relrowsecurity
                   and coalesce(m.right_ones = 5 and m.all_of_them = 5, false)) as whole
      from relation c
      left join granted g on g.oid = c.oid
      left join matching m on m.polrelid = c.oid
         , lateral (select case when c.relkind = 'v' then array['own SELECT', 'tree SELECT']
                                when c.relname = any ($3) then array['own INSERT', 'own SELECT', 'tree SELECT']
                                else array['own DELETE', 'own INSERT', 'own SELECT', 'own UPDATE', 'tree SELECT']
                           end) rights (wanted)
)
select coalesce(bool_and(whole), true)
       and has_schema_privilege($2, $1, 'usage') and has_schema_privilege($2 || '_tree', $1, 'usage') as whole
     , coalesce(array_agg(oid::regclass::text) filter (where relkind <> 'v' and not relforcerowsecurity)
              , '{}') as unforced
  from state";

/// The text of `waangu.broken_rule`, as this database has it: as a statement of its own it is planned once
/// for a connection, as a function once for each call, which takes longer than all the rest.
const RULE: &str = "
select replace(replace(prosrc, 'p_schema', '$1::text'), 'p_append_only', '$2::text[]')
  from pg_proc where oid = 'waangu.broken_rule(text, text[])'::regprocedure";

/// What bounds an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradeLimits {
    /// Longest wait for a lock: everybody who wants the table waits behind us meanwhile.
    pub lock: Duration,
    /// Longest run of one statement.
    pub statement: Duration,
}

impl Default for UpgradeLimits {
    fn default() -> Self {
        Self {
            lock: Duration::from_secs(2),
            statement: Duration::from_mins(5),
        }
    }
}

/// What was done for a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgraded {
    /// So many migrations ran.
    Migrated(usize),
    /// It had them all.
    AlreadyThere,
    /// It has more than the package knows.
    Newer,
}

/// A connection on which namespaces of one database are brought to one package, one after another.
#[derive(Debug)]
pub struct Upgrader {
    client: Object,
    check: Statement,
    rule: Statement,
    package: ModulePackage,
    /// How many migrations each schema has, as far as is known.
    have: HashMap<String, usize>,
    worked: usize,
}

impl CellAdmin {
    /// Opens a connection for upgrades.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn upgrader(
        &self,
        database: &str,
        package: &ModulePackage,
        limits: UpgradeLimits,
    ) -> Result<Upgrader, Fault> {
        let client = self.visit(database).await?;
        // Nothing is compiled for statements of which each runs once.
        let settings = format!(
            "set lock_timeout = {}; set statement_timeout = {}; set jit = off; set search_path = pg_catalog",
            limits.lock.as_millis(),
            limits.statement.as_millis(),
        );
        client.batch_execute(&settings).await.map_err(from_driver)?;
        let check = client.prepare(CHECK).await.map_err(from_driver)?;
        let rule = client.query_one(RULE, &[]).await.map_err(from_driver)?;
        let rule = rule.try_get(0).map_err(from_driver)?;
        let rule = client.prepare(rule).await.map_err(from_driver)?;
        let sql = "select schema_name, count(*) from waangu.migration where module = $1 group by 1";
        let rows = client
            .query(sql, &[&package.id().as_str()])
            .await
            .map_err(from_driver)?;
        let mut have = HashMap::with_capacity(rows.len());
        for row in rows {
            let count: i64 = row.try_get(1).map_err(from_driver)?;
            let schema = row.try_get(0).map_err(from_driver)?;
            have.insert(schema, usize::try_from(count).unwrap_or(0));
        }
        Ok(Upgrader {
            client,
            check,
            rule,
            package: package.clone(),
            have,
            worked: 0,
        })
    }
}

impl Upgrader {
    /// Whether the connection has seen enough and should be closed.
    pub fn is_spent(&self) -> bool {
        self.worked >= LIFE || self.client.is_closed()
    }

    /// Brings a schema to the package, which it is known to have had `steps` migrations of.
    ///
    /// # Errors
    /// `namespace-lost` when it has none of them; `module-manifest-invalid` when a migration breaks a rule
    /// of isolation; `internal` when its SQL fails; `database-unavailable` when a lock was not to be had
    /// or the server does not answer.
    pub async fn upgrade(&mut self, schema: &str, steps: usize) -> Result<Upgraded, Fault> {
        let have = self.have.get(schema).copied().unwrap_or(0);
        let wanted = self.package.migrations.len();
        if have == 0 && steps > 0 {
            return Err(
                fault::NAMESPACE_LOST.fault(format!("schema {schema} is not there any more"))
            );
        }
        if have > wanted {
            return Ok(Upgraded::Newer);
        }
        self.worked += 1;
        let done = self.migrate(schema, have).await;
        if done.is_err() && !self.client.is_closed() {
            // The transaction has failed; on this connection the next can begin.
            let rolled_back = self.client.batch_execute("rollback").await;
            rolled_back.map_err(from_driver)?;
        }
        done?;
        self.have.insert(schema.to_owned(), wanted);
        Ok(if have == wanted {
            Upgraded::AlreadyThere
        } else {
            Upgraded::Migrated(wanted - have)
        })
    }

    async fn migrate(&self, schema: &str, have: usize) -> Result<(), Fault> {
        // The same lock as a reconciler's that brings in the first tenant of a shared schema; whoever was
        // first, the migration's number is then taken.
        let script = format!(
            "begin;
             select pg_advisory_xact_lock(-3, hashtext({}));
             {}",
            literal(schema),
            migration_sql(schema, &self.package, have),
        );
        self.client
            .batch_execute(&script)
            .await
            .map_err(from_driver)?;
        let login = Access::Write.login(self.package.id());
        let append_only = &self.package.manifest.append_only;
        let params: [&(dyn crate::ToSql + Sync); 3] = [&schema, &login, append_only];
        let rule_params: [&(dyn crate::ToSql + Sync); 2] = [&schema, append_only];
        let (broken, row) = try_join!(
            self.client.query_opt(&self.rule, &rule_params),
            self.client.query_one(&self.check, &params),
        )
        .map_err(from_driver)?;
        if let Some(broken) = broken {
            let rule: &str = broken.try_get(0).map_err(from_driver)?;
            return Err(fault::MODULE_MANIFEST_INVALID.fault(format!("schema {schema}: {rule}")));
        }
        let whole: bool = row.try_get("whole").map_err(from_driver)?;
        let end = if whole {
            let unforced: Vec<String> = row.try_get("unforced").map_err(from_driver)?;
            let force = |table| format!("alter table {table} force row level security; ");
            unforced.into_iter().map(force).collect()
        } else {
            protection_sql(schema, &self.package) + "; "
        };
        self.client
            .batch_execute(&format!("{end} commit"))
            .await
            .map_err(from_driver)
    }
}
