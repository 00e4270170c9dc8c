//! Moves: one at a time, alone with the tenant, and counted at both ends.

use waangu_kernel::{Placement, RelocationId, TenantId, Tier};
use waangu_registry::{
    Feed, Figures, NewRelocation, Phase, RouteChange, Session, Standstill, State,
};
use waangu_testkit::connect;

use crate::support::{code, create, parsed, session, stock, world};

fn place(tier: Tier, epoch: i64) -> Placement {
    Placement {
        cell: parsed("sn-1"),
        tier,
        bucket: i32::from(tier == Tier::Schema),
        epoch,
    }
}

/// A tenant that is what is wanted.
async fn settled(session: &mut Session, slug: &str) -> TenantId {
    let id = create(session, slug).await.unwrap();
    let tx = session.begin().await.unwrap();
    tx.record_reached(id, 1, State::Active, &[], &[])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    id
}

async fn want(session: &mut Session, tenant: TenantId) -> RelocationId {
    let tx = session.begin().await.unwrap();
    let new = NewRelocation {
        tenant,
        from: place(Tier::Shared, 1),
        to: place(Tier::Schema, 2),
        reasons: vec!["test".to_owned()],
        why: None,
        actor: "test".to_owned(),
        max_pause_ms: 500,
        rate: None,
    };
    let id = tx.create_relocation(&new).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn phase(session: &mut Session, id: RelocationId, phase: Phase) {
    let tx = session.begin().await.unwrap();
    tx.move_on(id, phase, phase.as_str()).await.unwrap();
    tx.commit().await.unwrap();
}

/// Somebody who changed a tenant's tables while they are copied would make the copy another thing than
/// the tenant; what is wanted meanwhile must be done afterwards all the same.
#[tokio::test]
async fn a_tenant_on_the_move_is_left_alone() {
    let control = world().await;
    let (mut one, mut two) = (session(&control).await, session(&control).await);
    let tenant = settled(&mut one, "acme").await;
    let id = want(&mut one, tenant).await;
    let tx = one.begin().await.unwrap();
    let again = NewRelocation {
        tenant,
        from: place(Tier::Shared, 1),
        to: place(Tier::Dedicated, 2),
        reasons: Vec::new(),
        why: None,
        actor: "test".to_owned(),
        max_pause_ms: 500,
        rate: None,
    };
    assert_eq!(code(tx.create_relocation(&again).await), "relocation-open");
    drop(tx);
    assert!(
        one.claim_relocation(Standstill::Only, &[], &[])
            .await
            .unwrap()
            .is_none(),
        "it is not behind the commit point"
    );
    let moved = one
        .claim_relocation(Standstill::Any, &[], &[])
        .await
        .unwrap();
    assert_eq!(moved.unwrap().id, id);
    assert!(
        two.claim_relocation(Standstill::Any, &[], &[])
            .await
            .unwrap()
            .is_none(),
        "somebody has it"
    );
    phase(&mut one, id, Phase::Copying).await;
    one.release_all().await.unwrap();
    let tx = two.begin().await.unwrap();
    tx.touch_tenant(tenant).await.unwrap();
    tx.commit().await.unwrap();
    assert!(two.claim().await.unwrap().is_none(), "it is on the move");
    phase(&mut one, id, Phase::Cancelled).await;
    assert_eq!(two.claim().await.unwrap().unwrap().tenant, tenant);
}

/// Nobody serves a tenant whose worker was killed between the fence and its record, and ordinary workers may
/// all be in long copies; but who asks the same move again and again keeps it from them.
#[tokio::test]
async fn the_watchman_also_takes_what_may_be_behind_the_commit_point() {
    let control = world().await;
    let mut one = session(&control).await;
    let tenant = settled(&mut one, "acme").await;
    let id = want(&mut one, tenant).await;
    let mut watchman = session(&control).await;
    let mut claimed = async |asked: &[RelocationId]| {
        let claim = watchman.claim_relocation(Standstill::Only, &[], asked);
        let found = claim.await.unwrap();
        watchman.release_all().await.unwrap();
        found.map(|moved| moved.id)
    };
    for (now, is_claimed, is_claimed_again) in [
        (Phase::Copying, false, false),
        (Phase::Following, true, false),
        (Phase::Undoing, true, false),
        (Phase::Switching, true, true),
    ] {
        phase(&mut one, id, now).await;
        assert_eq!(claimed(&[]).await, is_claimed.then_some(id), "{now:?}");
        let again = claimed(&[id]).await;
        assert_eq!(again, is_claimed_again.then_some(id), "{now:?}");
    }
}

/// A place that is being moved to must not be given to somebody else, and one that was left must not be
/// dropped before it is empty.
#[tokio::test]
async fn places_count_at_both_ends() {
    let control = world().await;
    let mut one = session(&control).await;
    let first = settled(&mut one, "first").await;
    let second = settled(&mut one, "second").await;
    let cell = parsed("sn-1");
    want(&mut one, first).await;
    let id = want(&mut one, second).await;
    let tx = one.begin().await.unwrap();
    // The bound of a bucket is two here.
    assert_eq!(tx.choose_bucket(&cell).await.unwrap(), 2);
    assert_eq!(tx.hold_buckets(&cell).await.unwrap(), [1]);
    let moved = tx.get_relocation(id).await.unwrap();
    let tables = [(stock(), "aa".to_owned())];
    tx.switch_placement(&moved, &tables).await.unwrap();
    tx.switch_placement(&moved, &tables).await.unwrap();
    let now = tx.get_tenant_by_id(second).await.unwrap();
    assert_eq!(now.placement, place(Tier::Schema, 2));
    assert_eq!(
        tx.list_namespaces(second, &now.placement).await.unwrap()[0].hash,
        "aa"
    );
    tx.leave_for_cleaning(id, 0).await.unwrap();
    tx.move_on(id, Phase::Done, "done").await.unwrap();
    let unwanted = tx.report_relocation(id, &Figures::default()).await.unwrap();
    assert!(!unwanted);
    tx.commit().await.unwrap();
    let left = one.claim_left(&cell).await.unwrap().unwrap();
    assert_eq!((left.tenant, left.back), (second, false));
    assert_eq!(left.place.tier, Tier::Shared);
    let tx = one.begin().await.unwrap();
    tx.record_cleaned(id).await.unwrap();
    tx.commit().await.unwrap();
    one.release_all().await.unwrap();
    assert!(one.claim_left(&cell).await.unwrap().is_none());
    let admin = connect(&control.dsn).await.unwrap();
    let forget = "delete from registry.relocation_event";
    assert!(admin.execute(forget, &[]).await.is_err());
}

/// Modules open connections where a tenant is heading. Told too late, its people wait for them; told of a
/// place that it won't come to, they keep them for nobody.
#[tokio::test]
async fn gateways_hear_where_a_tenant_is_heading() {
    let control = world().await;
    let mut one = session(&control).await;
    let tenant = settled(&mut one, "acme").await;
    let mut feed = Feed::connect(&control.gateway_dsn).await.unwrap();
    feed.read().await.unwrap();
    for end in [Phase::Undoing, Phase::Switching] {
        let id = want(&mut one, tenant).await;
        let mut heard = Vec::new();
        for step in [Phase::Copying, Phase::Following, end] {
            phase(&mut one, id, step).await;
            let last = feed.read().await.unwrap().pop();
            heard.push(last.and_then(|change| match change {
                RouteChange::Put(route) => route.heading,
                RouteChange::Gone(..) => None,
            }));
        }
        assert_eq!(heard, [None, Some(place(Tier::Schema, 2)), None]);
        phase(&mut one, id, Phase::Cancelled).await;
    }
}

/// Moves a tenant as a worker would.
async fn arrive(session: &mut Session, id: RelocationId) {
    let tx = session.begin().await.unwrap();
    let moved = tx.get_relocation(id).await.unwrap();
    tx.switch_placement(&moved, &[]).await.unwrap();
    tx.leave_for_cleaning(id, 600).await.unwrap();
    tx.open_way_back(id, true).await.unwrap();
    tx.move_on(id, Phase::Done, "done").await.unwrap();
    tx.commit().await.unwrap();
}

/// A slot that nobody wants any more would fill a disk; one that is taken for such would make a quick way
/// back a slow one.
#[tokio::test]
async fn a_way_back_is_wanted_until_its_tenant_leaves() {
    let control = world().await;
    let mut one = session(&control).await;
    let tenant = settled(&mut one, "acme").await;
    let cell = parsed("sn-1");
    let there = want(&mut one, tenant).await;
    arrive(&mut one, there).await;
    let tx = one.begin().await.unwrap();
    let wanted = tx.list_wanted_ways(&cell).await.unwrap();
    assert_eq!(wanted.len(), 1);
    assert_eq!((wanted[0].tenant, wanted[0].epoch), (tenant, 2));
    assert!(tx.list_unwanted_ways(&cell).await.unwrap().is_empty());
    tx.record_held(there, 4096).await.unwrap();
    assert_eq!(
        tx.get_relocation(there).await.unwrap().held_bytes,
        Some(4096)
    );
    // Back: to the bucket it was in, and with a way back of its own instead.
    let back = NewRelocation {
        tenant,
        from: place(Tier::Schema, 2),
        to: place(Tier::Shared, 3),
        reasons: Vec::new(),
        why: None,
        actor: "test".to_owned(),
        max_pause_ms: 500,
        rate: None,
    };
    let back = tx.create_relocation(&back).await.unwrap();
    tx.record_adopted(back, true).await.unwrap();
    tx.commit().await.unwrap();
    arrive(&mut one, back).await;
    let tx = one.begin().await.unwrap();
    let wanted = tx.list_wanted_ways(&cell).await.unwrap();
    assert_eq!(wanted.len(), 1);
    assert_eq!((wanted[0].relocation, wanted[0].epoch), (back, 3));
    let first = tx.get_relocation(there).await.unwrap();
    assert!(!first.way_back && first.held_bytes.is_none(), "{first:?}");
    assert!(first.cleaned_at.is_some(), "the tenant lives there again");
    assert_eq!(tx.choose_bucket_back(&cell, 7).await.unwrap(), 7);
    // Its time is over.
    tx.leave_for_cleaning(back, 0).await.unwrap();
    tx.commit().await.unwrap();
    let tx = one.begin().await.unwrap();
    assert!(tx.list_wanted_ways(&cell).await.unwrap().is_empty());
    assert_eq!(tx.list_unwanted_ways(&cell).await.unwrap().len(), 1);
    tx.close_way_back(back, "over").await.unwrap();
    tx.close_way_back(back, "over").await.unwrap();
    let told = tx.list_relocation_events(back).await.unwrap();
    let closings = told.iter().filter(|event| event.message == "over");
    assert_eq!(closings.count(), 1, "said once");
    assert!(tx.list_unwanted_ways(&cell).await.unwrap().is_empty());
}
