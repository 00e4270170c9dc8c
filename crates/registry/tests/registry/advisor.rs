//! Traffic that gateways report, sizes, rounds.

use time::OffsetDateTime;
use waangu_kernel::TenantId;
use waangu_registry::{Registry, Traffic};

use crate::support::{code, create, parsed, session, world};

fn traffic(requests: i64, database_us: i64) -> Traffic {
    Traffic {
        requests,
        database_us,
    }
}

/// Two gateways that report at once must add up; a number that is nobody's, and one that is negative,
/// must not stand in the way of the rest.
#[tokio::test]
async fn a_gateway_adds_to_sums_and_does_nothing_else() {
    let control = world().await;
    let mut session = session(&control).await;
    let acme = create(&mut session, "acme").await.unwrap();
    let nobody = TenantId::new(987_654).unwrap();
    let gateway = Registry::new(&control.gateway_dsn, 2).unwrap();
    for _ in 0..2 {
        let mut session = gateway.session().await.unwrap();
        let tx = session.begin().await.unwrap();
        let said = [(nobody, traffic(1, 1)), (acme, traffic(30, 2_000_000))];
        tx.record_traffic(&said).await.unwrap();
        tx.record_traffic(&[(acme, traffic(-7, -7))]).await.unwrap();
        tx.commit().await.unwrap();
    }
    let tx = session.begin().await.unwrap();
    let since = OffsetDateTime::UNIX_EPOCH;
    let sums = tx.list_traffic(None, since).await.unwrap();
    assert_eq!(sums, [(acme, traffic(60, 4_000_000))]);

    let mut theirs = gateway.session().await.unwrap();
    let theirs = theirs.begin().await.unwrap();
    assert_eq!(code(theirs.list_traffic(None, since).await), "internal");
}

/// Two control planes, and an operator in a hurry, must not measure everything three times.
#[tokio::test]
async fn a_round_is_joined_and_done_once() {
    let control = world().await;
    let (mut one, mut two) = (session(&control).await, session(&control).await);
    let tx = one.begin().await.unwrap();
    assert!(tx.is_advisor_round_due(60).await.unwrap());
    let wanted = tx.want_advisor_round("operator:ada").await.unwrap();
    let joined = tx.want_advisor_round("control").await.unwrap();
    assert_eq!(
        (wanted.id, joined.wanted_by.as_str()),
        (joined.id, "operator:ada")
    );
    tx.commit().await.unwrap();

    let claimed = one.claim_advisor_round().await.unwrap().unwrap();
    assert_eq!(claimed.id, wanted.id);
    assert_eq!(two.claim_advisor_round().await.unwrap(), None);
    let tx = one.begin().await.unwrap();
    let forget = OffsetDateTime::UNIX_EPOCH;
    tx.finish_advisor_round(claimed.id, &serde_json::json!({}), None, forget)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    one.release_all().await.unwrap();
    assert_eq!(two.claim_advisor_round().await.unwrap(), None);
    let tx = two.begin().await.unwrap();
    assert!(!tx.is_advisor_round_due(60).await.unwrap());
    assert!(
        tx.get_advisor_round()
            .await
            .unwrap()
            .unwrap()
            .finished_at
            .is_some()
    );
}

/// A cell that reports a tenant which has moved away meanwhile would overwrite what its new cell says.
#[tokio::test]
async fn sizes_are_taken_from_where_the_tenant_lives() {
    let control = world().await;
    let mut session = session(&control).await;
    let acme = create(&mut session, "acme").await.unwrap();
    let tx = session.begin().await.unwrap();
    let number = acme.number();
    let taken = tx.put_volumes(&parsed("sn-2"), &[(number, 5, None)]).await;
    assert_eq!(taken.unwrap(), 0);
    let held = [(number, 5, Some(2)), (987_654, 1, None)];
    assert_eq!(tx.put_volumes(&parsed("sn-1"), &held).await.unwrap(), 1);
}
