//! Subtree scope: a head office reads itself and all tenants below it, and nothing else; it writes
//! nothing.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use waangu_identity::proof::{Access, ProofClaims};
use waangu_identity::{Proof, RequestContext};
use waangu_kernel::placement::{Place, Tier};
use waangu_kernel::{Clock as _, Fault, SystemClock};
use waangu_tenancy::{HomeState, TenantTx, TreeTx, Visit, sql_state};
use waangu_testkit::connect;

use crate::support::{Home, code, count, enter, module, state};

/// A group: `top` above `head`, below which stand `shop` and, below that, `kiosk`; `sister` is beside
/// `head`, and `stranger` is nobody's. Each has one product with its own name.
struct Group {
    top: Home,
    head: Home,
    shop: Home,
    kiosk: Home,
    sister: Home,
    stranger: Home,
}

impl Group {
    async fn new(tier: Tier) -> Self {
        let top = Home::new(tier).await;
        let group = Self {
            head: top.neighbour().await,
            shop: top.neighbour().await,
            kiosk: top.neighbour().await,
            sister: top.neighbour().await,
            stranger: top.neighbour().await,
            top,
        };
        let Self {
            top,
            head,
            shop,
            kiosk,
            sister,
            stranger,
        } = &group;
        below(top, &[]).await;
        below(head, &[top]).await;
        below(shop, &[head, top]).await;
        below(kiosk, &[shop, head, top]).await;
        below(sister, &[top]).await;
        below(stranger, &[]).await;
        for (home, name) in [
            (top, "top"),
            (head, "head"),
            (shop, "shop"),
            (kiosk, "kiosk"),
            (sister, "sister"),
            (stranger, "stranger"),
        ] {
            home.stock_up(1, name).await;
        }
        group
    }

    fn all(&self) -> [&Home; 6] {
        let Self {
            top,
            head,
            shop,
            kiosk,
            sister,
            stranger,
        } = self;
        [top, head, shop, kiosk, sister, stranger]
    }
}

/// What the reconciler does with a tenant's ancestors.
async fn below(home: &Home, ancestors: &[&Home]) {
    let mut lineage: Vec<i64> = ancestors.iter().map(|home| home.tenant.number()).collect();
    lineage.push(home.tenant.number());
    home.cell
        .admin
        .set_lineage(home.tenant, &home.placement, &lineage)
        .await
        .unwrap();
}

/// What the gateway would send for a request of `root` that visits `homes`.
fn context(root: &Home, homes: &[&Home]) -> RequestContext {
    let mut places: Vec<Place> = Vec::new();
    for home in homes {
        let tenant = (
            home.tenant,
            format!("t{}", home.tenant.number()).parse().unwrap(),
        );
        let placement = &home.placement;
        let beside = places
            .iter_mut()
            .find(|place| place.tier == placement.tier && place.bucket == placement.bucket);
        match beside {
            Some(place) => place.tenants.push(tenant),
            None => places.push(Place {
                cell: placement.cell.clone(),
                tier: placement.tier,
                bucket: placement.bucket,
                tenants: vec![tenant],
            }),
        }
    }
    RequestContext {
        places,
        ..root.context(Access::Tree)
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// The names that a request of `root` reads, and how many tenants it misses.
async fn read(root: &Home, homes: &[&Home]) -> Result<(Vec<String>, usize), Fault> {
    let pools = root.cell.tree_pools(&module("stock"));
    let (mut names, mut missing) = (Vec::new(), 0);
    for visit in Visit::all(&context(root, homes)) {
        let mut tx = TreeTx::begin(&pools, &visit, soon()).await?;
        missing += tx.missing().len();
        if tx.here() > 0 {
            let rows = tx.query("select name from product", &[]).await?;
            names.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        tx.finish().await?;
    }
    names.sort();
    Ok((names, missing))
}

/// A session with the login for subtrees, as `psql` would have it.
async fn outsider(home: &Home) -> Client {
    let dsn = home.cell.tree_dsn(&module("stock"), &home.database());
    let client = connect(&dsn).await.unwrap();
    let path = format!("set search_path = {}", home.schema());
    client.batch_execute(&path).await.unwrap();
    client
}

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

/// One tenant too many is a leak, one too few a wrong balance sheet. What the list of places says
/// changes nothing: PostgreSQL decides.
#[tokio::test]
async fn a_head_office_sees_itself_and_all_below_and_nobody_else() {
    for tier in Tier::ALL {
        let group = Group::new(tier).await;
        let Group {
            top,
            head,
            shop,
            kiosk,
            stranger,
            ..
        } = &group;
        let all = group.all();
        for (root, sees) in [
            (top, vec!["head", "kiosk", "shop", "sister", "top"]),
            (head, vec!["head", "kiosk", "shop"]),
            (shop, vec!["kiosk", "shop"]),
            (kiosk, vec!["kiosk"]),
            (stranger, vec!["stranger"]),
        ] {
            let (names, missing) = read(root, &all).await.unwrap();
            assert_eq!(names, sees, "{tier}");
            assert_eq!(missing, all.len() - sees.len(), "{tier}");
        }
        // A list that leaves somebody out narrows.
        assert_eq!(
            read(top, &[shop]).await.unwrap(),
            (vec!["shop".to_owned()], 0)
        );
    }
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
    for sql in [
        "select waangu.subtree()",
        "select waangu.visit('{1}')",
        "select currval('waangu.seal_tree')",
    ] {
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
            "select setval('waangu.seal_tree', 1)",
            "select setval('waangu.seal_tenant', 1)",
            "select currval('waangu.seal_tree')",
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

/// Reading must not cost a transaction id: a hundred head offices would age every table.
#[tokio::test]
async fn a_subtree_is_read_without_a_transaction_id_and_seals_no_tenant() {
    let group = Group::new(Tier::Shared).await;
    let client = outsider(&group.head).await;
    client.batch_execute("begin").await.unwrap();
    enter(&client, &group.head.context(Access::Tree))
        .await
        .unwrap();
    assert_eq!(count(&client, "product").await.unwrap(), 3);
    let sql = "select pg_current_xact_id_if_assigned() is null
                  and waangu.tenant() is null
                  and waangu.writer() is null
                  and current_setting('transaction_read_only') = 'on'
                  and current_setting('app.current_tenant') = $1
                  and current_setting('app.actor') <> ''";
    let number = group.head.tenant.number().to_string();
    let row = client.query_one(sql, &[&number]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

/// A suspended shop is left out and named; a suspended head office reads nothing.
#[tokio::test]
async fn who_is_closed_is_left_out_and_named() {
    for tier in Tier::ALL {
        let group = Group::new(tier).await;
        let Group {
            head, shop, kiosk, ..
        } = &group;
        let admin = &head.cell.admin;
        admin
            .put_home(shop.tenant, &shop.placement, HomeState::Suspended)
            .await
            .unwrap();
        let (names, missing) = read(head, &[head, shop, kiosk]).await.unwrap();
        assert_eq!(
            (names, missing),
            (vec!["head".to_owned(), "kiosk".to_owned()], 1),
            "{tier}"
        );

        admin
            .put_home(head.tenant, &head.placement, HomeState::Suspended)
            .await
            .unwrap();
        let client = outsider(head).await;
        client.batch_execute("begin").await.unwrap();
        let entered = enter(&client, &head.context(Access::Tree)).await;
        assert_eq!(state(entered), "WG001", "{tier}");
    }
}

/// A shop that was sold must be read by its new owner and no more by its old one.
#[tokio::test]
async fn a_new_parent_changes_who_reads() {
    for tier in Tier::ALL {
        let group = Group::new(tier).await;
        let Group {
            top,
            head,
            shop,
            kiosk,
            sister,
            ..
        } = &group;
        let all = group.all();
        below(shop, &[sister, top]).await;
        below(kiosk, &[shop, sister, top]).await;
        assert_eq!(read(head, &all).await.unwrap().0, ["head"], "{tier}");
        assert_eq!(
            read(sister, &all).await.unwrap().0,
            ["kiosk", "shop", "sister"],
            "{tier}"
        );
        assert_eq!(read(top, &all).await.unwrap().0.len(), 5, "{tier}");
        let observed = shop
            .cell
            .admin
            .observe(shop.tenant, &shop.placement, &[])
            .await
            .unwrap();
        let mut lineage = vec![
            shop.tenant.number(),
            sister.tenant.number(),
            top.tenant.number(),
        ];
        lineage.sort_unstable();
        assert_eq!(observed.lineage, lineage, "{tier}");
    }
}

/// A tenant that leaves while it is read would be in one sum and not in the next.
#[tokio::test]
async fn who_leaves_half_way_spoils_the_visit() {
    let group = Group::new(Tier::Shared).await;
    let (head, shop) = (&group.head, &group.shop);
    let pools = head.cell.tree_pools(&module("stock"));
    let visits = Visit::all(&context(head, &[head, shop]));
    let mut tx = TreeTx::begin(&pools, &visits[0], soon()).await.unwrap();
    tx.query("select count(*) from product", &[]).await.unwrap();
    below(shop, &[]).await;
    assert_eq!(code(tx.finish().await), "tenant-moving");
}

/// A number that is used no more must not stay readable.
#[tokio::test]
async fn a_removed_tenant_leaves_no_lineage() {
    for tier in [Tier::Shared, Tier::Schema] {
        let group = Group::new(tier).await;
        let kiosk = &group.kiosk;
        let admin = &kiosk.cell.admin;
        admin
            .remove_tenant(kiosk.tenant, &kiosk.placement)
            .await
            .unwrap();
        let left = admin
            .observe(kiosk.tenant, &kiosk.placement, &[])
            .await
            .unwrap();
        assert!(left.lineage.is_empty(), "{tier}");
        let (names, _) = read(&group.head, &[&group.head, &group.shop])
            .await
            .unwrap();
        assert_eq!(names, ["head", "shop"], "{tier}");
    }
}

/// The subtree must cost the ordinary path nothing: a point read stays one look into the index.
#[tokio::test]
async fn the_ordinary_paths_plan_is_an_equality_on_the_key() {
    let group = Group::new(Tier::Shared).await;
    let superuser = group.head.superuser().await;
    let fill = "insert into stock.product (tenant_id, id, name)
                select $1, n, 'filler' from generate_series(100, 5000) n";
    superuser
        .execute(fill, &[&group.head.tenant.number()])
        .await
        .unwrap();
    superuser
        .batch_execute("analyze stock.product")
        .await
        .unwrap();
    let mut tx = group.head.begin(Access::Read).await.unwrap();
    let plan = tx
        .query(
            "explain (costs off) select name from product where id = 7",
            &[],
        )
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get::<_, String>(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan using product_pkey"), "{plan}");
    assert!(
        plan.contains("Index Cond: ((tenant_id = $0) AND (id = 7))"),
        "{plan}"
    );
    assert!(!plan.contains("ANY") && !plan.contains("Filter"), "{plan}");
    drop(tx);
    let client = outsider(&group.head).await;
    let sql = "explain (costs off) select name from product where id = 7";
    let refused = group.head.outsider().await;
    assert_eq!(
        state(refused.query("select waangu.subtree()", &[]).await),
        "42501"
    );
    let rows = client.query(sql, &[]).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get::<_, String>(0)).collect();
    assert!(plan.join("\n").contains("tenant_id = ANY"), "{plan:?}");
}

/// A request is refused in time, whatever became of its place.
#[tokio::test]
async fn a_place_that_does_not_answer_says_so_by_the_deadline() {
    let group = Group::new(Tier::Dedicated).await;
    let (head, shop) = (&group.head, &group.shop);
    let admin = connect(&head.cell.superuser_dsn("postgres")).await.unwrap();
    let stop = format!("alter database {} with connection limit 0", shop.database());
    admin.batch_execute(&stop).await.unwrap();
    let pools = head.cell.tree_pools(&module("stock"));
    let mut answers = Vec::new();
    for visit in Visit::all(&context(head, &[head, shop])) {
        let begun = TreeTx::begin(&pools, &visit, soon()).await;
        answers.push(
            begun
                .map(drop)
                .map_err(|fault| (fault.code(), sql_state(&fault).map(str::to_owned))),
        );
    }
    assert_eq!(answers[0], Ok(()));
    let (code, _) = answers[1].clone().unwrap_err();
    assert_eq!(code, "database-unavailable");
}
