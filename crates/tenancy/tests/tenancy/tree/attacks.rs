//! What somebody can do who has the login for subtrees, or SQL inside one's transaction.

use waangu_identity::proof::{Access, ProofClaims};
use waangu_identity::{Proof, RequestContext};
use waangu_kernel::placement::Tier;
use waangu_kernel::{Clock as _, SystemClock};
use waangu_tenancy::TenantTx;

use super::{Group, outsider};
use crate::support::{Home, code, count, enter, module, state};

fn prove(home: &Home, login: &str, access: Access) -> Proof {
    home.cell.key.prove(&ProofClaims {
        login,
        tenant: home.tenant.number(),
        epoch: home.placement.epoch,
        expires: SystemClock.unix_seconds() + 30,
        access,
        actor: "usr_1",
        request: "req_1",
    })
}

/// In one database every query of the head office, with SQL of an attacker, stays in its subtree.
#[tokio::test]
async fn sql_in_a_subtrees_transaction_reaches_nobody_else() {
    let group = Group::new(Tier::Shared).await;
    let client = outsider(&group.head).await;
    let (top, sister) = (group.top.tenant.number(), group.sister.tenant.number());
    for (sql, sees) in [
        ("select 1".to_owned(), 3),
        (format!("select waangu.visit('{{{top},{sister}}}')"), 0),
        (format!("set local app.visit = '{{{top},{sister}}}'"), 0),
        ("set local app.visit = ''".to_owned(), 3),
        ("reset app.visit".to_owned(), 3),
        (format!("set local app.current_tenant = '{top}'"), 0),
        ("set local app.current_tenant = ''".to_owned(), 0),
        ("reset all; set search_path = stock".to_owned(), 0),
        ("savepoint s; rollback to s".to_owned(), 3),
    ] {
        client.batch_execute("begin").await.unwrap();
        enter(&client, &group.head.context(Access::Tree))
            .await
            .unwrap();
        client.batch_execute(&sql).await.unwrap();
        assert_eq!(count(&client, "product").await.unwrap(), sees, "{sql}");
        client.batch_execute("rollback").await.unwrap();
    }
    // Without a seal, or with one that is over, nothing.
    let set = format!("set app.current_tenant = '{}'", group.head.tenant.number());
    client.batch_execute(&set).await.unwrap();
    assert_eq!(count(&client, "product").await.unwrap(), 0);
    let fresh = outsider(&group.head).await;
    assert_eq!(count(&fresh, "product").await.unwrap(), 0);
    fresh.batch_execute(&set).await.unwrap();
    assert_ne!(
        count(&fresh, "product").await.unwrap_or(0),
        3,
        "an error is as good"
    );
}

/// The two kinds of proof and the two logins must not mix: one would lend the other its rights.
#[tokio::test]
async fn proofs_of_one_kind_are_refused_to_the_other_login() {
    let group = Group::new(Tier::Shared).await;
    let head = &group.head;
    let (own, tree) = ("waangu_stock", "waangu_stock_tree");
    for (login, access, fine_for) in [
        (own, Access::Read, Some(own)),
        (own, Access::Write, Some(own)),
        (tree, Access::Tree, Some(tree)),
        (own, Access::Tree, None),
        (tree, Access::Read, None),
        (tree, Access::Write, None),
    ] {
        let context = RequestContext {
            proof: prove(head, login, access),
            ..head.context(access)
        };
        for (session, client) in [(own, head.outsider().await), (tree, outsider(head).await)] {
            client.batch_execute("begin").await.unwrap();
            let entered = enter(&client, &context).await;
            if fine_for == Some(session) {
                entered.unwrap();
            } else {
                assert_eq!(state(entered), "42501", "{login} {access:?} as {session}");
            }
        }
    }
    let genuine = head.context(Access::Tree);
    for (from, to) in [
        ("|t|", "|w|"),
        ("_tree|", "|"),
        (
            &*format!("|{}|", head.tenant.number()),
            &*format!("|{}|", group.top.tenant.number()),
        ),
    ] {
        let mut forged = genuine.clone();
        forged.proof.claims = forged.proof.claims.replacen(from, to, 1);
        assert_ne!(forged.proof, genuine.proof);
        for client in [head.outsider().await, outsider(head).await] {
            client.batch_execute("begin").await.unwrap();
            assert_eq!(state(enter(&client, &forged).await), "42501", "{from}");
        }
    }
    // By way of the pools, as a module mixed up would do it.
    let result = TenantTx::begin(&head.pools, &genuine).await;
    assert_eq!(code(result), "context-refused");
    let tree_pools = head.cell.tree_pools(&module("stock"));
    let result = TenantTx::begin(&tree_pools, &head.context(Access::Write)).await;
    assert_eq!(code(result), "context-refused");
    let ordinary = head.outsider().await;
    for sql in ["select waangu.subtree()", "select waangu.visit('{1}')"] {
        assert_eq!(state(ordinary.query(sql, &[]).await), "42501", "{sql}");
    }
}

/// A head office that could write would do so in others' books; a stolen login would do worse.
#[tokio::test]
async fn a_subtree_is_never_written_and_its_login_reaches_nothing_else() {
    for tier in Tier::ALL {
        let group = Group::new(tier).await;
        for sql in [
            "insert into product (tenant_id, id, name) values (1, 2, 'x')",
            "update product set name = 'x'",
            "delete from product",
            "truncate product",
            "select * from product for update",
            "select * from product for share",
            "lock table product in share mode",
            "copy product from stdin",
            "create temp table t (id bigint)",
            "create table t (id bigint)",
            "select waangu.enter_tree(1, 'a', 'b')",
            "set local backtrace_functions = 't1'",
            "set local backtrace_functions = 'w1'",
            "select * from waangu.closure",
            "select * from waangu.home",
            "select * from waangu.context_key",
            "insert into waangu.closure values (1, 2)",
            "set role waangu_owner",
            "set role waangu_stock",
            "set role waangu_module",
            "select pg_advisory_xact_lock(1)",
            "select pg_terminate_backend(pg_backend_pid())",
            "select lo_create(0)",
            "select * from pg_stat_activity",
        ] {
            for reopen in [false, true] {
                let client = outsider(&group.head).await;
                client.batch_execute("begin; savepoint s").await.unwrap();
                enter(&client, &group.head.context(Access::Tree))
                    .await
                    .unwrap();
                if reopen {
                    // Undoes the read-only setting; the rights are what counts.
                    client.batch_execute("rollback to s").await.unwrap();
                }
                let code = state(client.batch_execute(sql).await);
                let fine: &[&str] = if reopen {
                    &["42501", "3F000"]
                } else {
                    &["42501", "25006", "3F000"]
                };
                assert!(
                    fine.contains(&code.as_str()),
                    "{tier} {reopen} {sql}: {code}"
                );
            }
        }
        for home in group.all() {
            assert_eq!(home.rows().await, [1, 1], "{tier}");
        }
    }
}
