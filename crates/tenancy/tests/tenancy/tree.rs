//! Subtree scope: a head office reads itself and all tenants below it, and nothing else; it writes
//! nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use waangu_identity::RequestContext;
use waangu_identity::proof::Access;
use waangu_kernel::Fault;
use waangu_kernel::placement::{Place, Tier};
use waangu_tenancy::{HomeState, TreeTx, Visit};
use waangu_testkit::connect;

use crate::support::{Home, code, count, enter, module, state};

mod attacks;

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
        tx.answer(()).await?;
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
    assert_eq!(code(tx.answer(()).await), "tenant-moving");
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
    // PostgreSQL 17 and later write `(InitPlan 1).col1` for `$0`.
    let plan = plan.replace("(InitPlan 1).col1", "$0");
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
    let no_more = format!("alter database {} with connection limit 0", shop.database());
    admin.batch_execute(&no_more).await.unwrap();
    let pools = head.cell.tree_pools(&module("stock"));
    let mut answers = Vec::new();
    for visit in Visit::all(&context(head, &[head, shop])) {
        let begun = TreeTx::begin(&pools, &visit, soon()).await;
        answers.push(begun.map(drop).map_err(|fault| fault.code()));
    }
    assert_eq!(answers, [Ok(()), Err("database-unavailable")]);
}
