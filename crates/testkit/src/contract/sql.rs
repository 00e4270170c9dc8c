//! Leads the SQL attacks: on a weakened copy, where each must succeed, and on the real thing.

use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};
use waangu_identity::proof::Access;
use waangu_tenancy::Mend;
use waangu_tenancy::inspect::inspect;

use super::attacks::{self, Attack, Leak};
use super::{Stage, enter};
use crate::world::EVERYTHING;

/// Words that stand for a stage's names in the attacks.
pub(super) struct Names(Vec<(&'static str, String)>);

/// What an attacker got to see.
#[derive(Debug, Default)]
pub(super) struct Loot {
    rows: Vec<Vec<Option<String>>>,
    error: Option<(String, String)>,
}

pub(super) async fn attack(stage: &Stage<'_>) {
    let admin = stage.admin(stage.theirs.home).await;
    // Statistics of everything, so that there is something to leak.
    admin.batch_execute("analyze").await.expect("analyze");
    let tables = stage.tables(stage.theirs.home).await;
    let before = stage.fingerprint(stage.theirs.home).await;
    let mut start = 0;
    for attack in attacks::all() {
        // Each table gets its share of the attacks, and all of them the worst.
        start += 1;
        let mut led = false;
        for table in tables.iter().cycle().skip(start).take(tables.len()) {
            if attack.everywhere || !led {
                led |= lead(stage, &admin, attack, table).await;
            }
        }
        let needs = attack.needs != "true" || attack.weaken.contains("{parent}");
        assert!(led || needs, "{} was led nowhere", attack.name);
    }
    for table in &tables {
        plans_are_alike(stage, &admin, table).await;
    }
    let after = stage.fingerprint(stage.theirs.home).await;
    assert_eq!(before, after, "{}: their rows have changed", stage.tier);
}

/// A row of somebody else and a row of nobody cost the same work, so that no clock tells them apart.
async fn plans_are_alike(stage: &Stage<'_>, admin: &Client, table: &str) {
    let names = Names::of(stage, admin, table).await;
    let (theirs, ids) = (names.fill("{row}"), &stage.theirs.seeded.ids);
    let nobodys = ids.iter().fold(theirs.clone(), |row, id| {
        row.replace(id, &super::nobodys(id))
    });
    let mut plans = Vec::new();
    for row in [theirs, nobodys] {
        let thief = stage.thief(stage.theirs.home).await;
        let caller = stage.world.caller(stage.ours.home, EVERYTHING);
        enter(&thief, caller, Access::Read).await;
        let sql = format!(
            "explain (analyze, costs off, timing off, summary off)
             select from {{table}} where ({{key}}) =
                 (select {{key}} from jsonb_populate_record(null::{{table}}, '{row}'))"
        );
        let plan = thief.simple_query(&names.fill(&sql)).await;
        plans.push(plan.map(|plan| rows(&plan)).map_err(|error| said(&error)));
    }
    let alike = matches!(&plans[..], [theirs, nobodys] if theirs == nobodys);
    assert!(alike, "{table}: plans differ: {plans:#?}");
}

/// Leads one attack against one table; says whether it was possible there at all.
async fn lead(stage: &Stage<'_>, admin: &Client, attack: &Attack, table: &str) -> bool {
    let names = Names::of(stage, admin, table).await;
    let what = format!("{}: {} ({table})", stage.tier, attack.name);
    if !possible(admin, &names, attack).await {
        return false;
    }
    let weaken = names.fill(attack.weaken);
    let weakened = admin.batch_execute(&weaken).await;
    weakened.unwrap_or_else(|error| unreachable!("{what}: `{weaken}`: {error:?}"));
    let loot = raid(stage, &names, attack).await;
    assert!(
        loot.is(attack.leak, &names),
        "{what}: it does not even work without the defence: {loot:?}"
    );
    let drifts = inspect(admin, &stage.rules).await.expect("inspect");
    assert!(
        !drifts.is_empty(),
        "{what}: no drift is seen after `{weaken}`"
    );
    for drift in drifts {
        if let Mend::Sql(mend) = &drift.mend {
            // One mend may do the work of another.
            drop(admin.batch_execute(mend).await);
        }
    }
    let restore = names.fill(attack.restore);
    let restored = admin.batch_execute(&restore).await;
    restored.unwrap_or_else(|error| unreachable!("{what}: `{restore}`: {error:?}"));
    let left = inspect(admin, &stage.rules).await.expect("inspect");
    assert!(left.is_empty(), "{what}: left after the mends: {left:#?}");
    let loot = raid(stage, &names, attack).await;
    assert!(!loot.is(attack.leak, &names), "{what}: IT WORKS: {loot:?}");
    true
}

/// Whether the server has what the attack needs at all (an extension's files, a foreign key).
async fn possible(admin: &Client, names: &Names, attack: &Attack) -> bool {
    let needs = names.fill(attack.needs);
    let weaken = names.fill(attack.weaken);
    let unknown = ["{parent", "{key}"]
        .iter()
        .any(|name| weaken.contains(name));
    !needs.contains('{') && !unknown && {
        let sql = format!("select ({needs})::boolean");
        let row = admin.query_one(&sql, &[]).await;
        row.is_ok_and(|row| row.get(0))
    }
}

/// What the module's login gets in the victim's database, with the attacker's context if it is of any
/// use there.
async fn raid(stage: &Stage<'_>, names: &Names, attack: &Attack) -> Loot {
    let victim = stage.thief(stage.theirs.home).await;
    let text = names.fill("select 'of {secret}'");
    victim.batch_execute(&text).await.expect("the victim works");
    let pid = victim.query_one("select pg_backend_pid()", &[]).await;
    let pid: i32 = pid.expect("the victim's process").get(0);
    // What others see of it is this last statement.
    victim.batch_execute(&text).await.expect("the victim works");

    let thief = stage.thief(stage.theirs.home).await;
    let caller = stage.world.caller(stage.ours.home, EVERYTHING);
    let access = if attack.reads {
        Access::Read
    } else {
        Access::Write
    };
    if attack.savepoint {
        thief
            .batch_execute("begin; savepoint before")
            .await
            .expect("begin");
        let proof = caller.context(access).proof;
        let sql = "select waangu.enter($1, $2, $3)";
        drop(
            thief
                .query_one(sql, &[&proof.claims, &proof.kid, &proof.mac])
                .await,
        );
        let back = thief.batch_execute("rollback to before").await;
        back.expect("go back to the savepoint");
    } else {
        enter(&thief, caller, access).await;
    }
    let mut loot = Loot::default();
    for statement in attack.script {
        let statement = names.fill(statement).replace("{pid}", &pid.to_string());
        match thief.simple_query(&statement).await {
            Ok(messages) => loot.rows = rows(&messages),
            Err(error) => {
                loot = Loot {
                    rows: Vec::new(),
                    error: Some(said(&error)),
                };
                break;
            }
        }
    }
    loot
}

fn rows(messages: &[SimpleQueryMessage]) -> Vec<Vec<Option<String>>> {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let cell = |index| row.get(index).map(ToOwned::to_owned);
            Some((0..row.len()).map(cell).collect())
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// SQLSTATE and everything that PostgreSQL tells besides.
fn said(error: &tokio_postgres::Error) -> (String, String) {
    let Some(db) = error.as_db_error() else {
        return (String::new(), error.to_string());
    };
    let details = [db.detail(), db.hint(), db.where_()];
    let details: Vec<_> = details.into_iter().flatten().collect();
    let text = format!("{} {}", db.message(), details.join(" "));
    (db.code().code().to_owned(), text)
}

impl Loot {
    fn is(&self, leak: Leak, names: &Names) -> bool {
        let first = self.rows.first().and_then(|row| row.first()).cloned();
        let first = first.flatten();
        match leak {
            Leak::Counts => first.is_some_and(|count| count.parse().is_ok_and(|n: i64| n > 0)),
            Leak::Succeeds => self.error.is_none(),
            Leak::Says => format!("{self:?}").contains(&names.fill("{secret}")),
            Leak::Fails(state) => self.error.as_ref().is_some_and(|(code, _)| code == state),
        }
    }
}

impl Names {
    /// The names of a stage for one of the victim's tables.
    async fn of(stage: &Stage<'_>, admin: &Client, table: &str) -> Self {
        let module = &stage.world.package.manifest.id;
        let (ours, theirs) = (stage.ours.home, stage.theirs.home);
        let schema = stage.schema(theirs);
        let name = format!("{schema}.{table}");
        let sql = format!(
            "select to_jsonb(t) || jsonb_build_object('tenant_id', {}::bigint)
               from {name} t where tenant_id = $1
              order by strpos(t::text, $2) desc limit 1",
            ours.0.number()
        );
        let secret = stage.mark(&stage.theirs, table).await;
        let row = admin.query_opt(&sql, &[&theirs.0.number(), &secret]).await;
        let row = row.expect("read a victim's row");
        let row: Value = row
            .unwrap_or_else(|| unreachable!("the seed leaves table {table} empty"))
            .get(0);
        let key = "select string_agg(quote_ident(a.attname), ', ' order by k.place)
                     from pg_constraint c
                        , unnest(c.conkey) with ordinality k (number, place)
                     join pg_attribute a on a.attnum = k.number
                    where a.attrelid = c.conrelid and c.conrelid = to_regclass($1)
                      and c.contype = 'p' and a.attname <> 'tenant_id'";
        let key = admin.query_one(key, &[&name]).await.expect("find the key");
        let mut names = vec![
            ("{row}", row.to_string().replace('\'', "''")),
            ("{table}", name.clone()),
            ("{name}", table.to_owned()),
            ("{schema}", schema),
            ("{login}", Access::Write.login(module)),
            ("{a}", ours.0.number().to_string()),
            ("{b}", theirs.0.number().to_string()),
            ("{database}", theirs.1.database(theirs.0)),
            ("{secret}", secret),
        ];
        let key: Option<String> = key.get(0);
        names.extend(key.map(|key| ("{key}", key)));
        names.extend(foreign_key(admin, &name).await);
        Self(names)
    }

    pub(super) fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (word, name)| {
            text.replace(word, name)
        })
    }
}

/// A foreign key of the table, without the tenants.
async fn foreign_key(admin: &Client, table: &str) -> Vec<(&'static str, String)> {
    let columns = |side: &str, relation: &str| {
        format!(
            "(select string_agg(quote_ident(a.attname), ', ' order by k.place)
                from unnest(c.{side}) with ordinality k (number, place)
                join pg_attribute a on a.attnum = k.number and a.attrelid = c.{relation}
               where a.attname <> 'tenant_id')"
        )
    };
    let sql = format!(
        "select c.confrelid::regclass::text, {}, {} from pg_constraint c
          where c.conrelid = to_regclass($1) and c.contype = 'f' order by c.conname limit 1",
        columns("conkey", "conrelid"),
        columns("confkey", "confrelid")
    );
    let row = admin.query_opt(&sql, &[&table]).await;
    let Some(row) = row.expect("find a foreign key") else {
        return Vec::new();
    };
    vec![
        ("{parent}", row.get(0)),
        ("{columns}", row.get(1)),
        ("{parent_columns}", row.get(2)),
    ]
}
