//! What moves leave behind: the rows of the old place, after a grace time; and debris of workers that
//! were killed. Part of housekeeping.

use std::collections::BTreeSet;
use std::time::Duration;

use waangu_kernel::{Fault, TenantId, fault};
use waangu_registry::{Hold, Registry, Session, Tx};
use waangu_relocation::{Debris, Error, databases_of, debris_in, drop_overdrawn, sweep_in};
use waangu_tenancy::CellAdmin;

/// Rows removed at a time from shared tables, and the rest after each batch: others work there.
const BATCH: (i64, Duration) = (2_000, Duration::from_millis(20));

/// How long after a move its places are looked at in every round: a worker that has lost its claim may be
/// so late.
const LATE_SECONDS: i32 = 600;

/// Rounds of housekeeping in an hour, in which all databases are visited once.
const ROUNDS: usize = 240;

/// Databases visited in a round after the start, until all have been.
const FIRST_SHARE: usize = 20;

/// Removes what has served its grace time at one cell.
pub(crate) async fn empty_places(registry: &Registry, cell: &CellAdmin) -> Result<(), Fault> {
    loop {
        let mut session = registry.session().await?;
        let Some(left) = session.claim_left(cell.id()).await? else {
            return Ok(());
        };
        if !left.back {
            let tx = session.begin().await?;
            let activations = tx.list_activations(left.tenant).await?;
            tx.commit().await?;
            let modules: Vec<_> = activations.into_iter().map(|one| one.module).collect();
            cell.empty_place(left.tenant, &left.place, &modules, BATCH)
                .await?;
            tracing::info!(tenant = %left.tenant, cell = %cell.id(), "old place emptied");
        }
        let tx = session.begin().await?;
        tx.record_cleaned(left.relocation).await?;
        tx.commit().await?;
        session.release_all().await?;
    }
}

/// Removes slots, publications and copies of tenants that are not on their way, and slots that hold back
/// too much, whoever's they are.
pub(crate) async fn sweep_cell(
    registry: &Registry,
    cell: &CellAdmin,
    beat: &mut Beat,
    max_held: i64,
) -> Result<(), Fault> {
    let config = cell.config();
    let dropped = drop_overdrawn(config, max_held).await.map_err(unswept)?;
    for slot in dropped {
        tracing::warn!(cell = %cell.id(), "slot {slot} held back more than {max_held} bytes of log");
    }
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    let mut places = tx.list_ended_places(cell.id(), LATE_SECONDS).await?;
    let known = spared(&tx, cell).await?;
    tx.commit().await?;
    let (share, after) = beat.next(&databases_of(config).await.map_err(unswept)?);
    places.extend(share);
    let found = debris_in(config, &places).await.map_err(unswept)?;
    if found.iter().any(|debris| !debris.is_of(&known)) {
        sweep(&mut session, cell, &found).await?;
    }
    *beat = after;
    Ok(())
}

async fn sweep(session: &mut Session, cell: &CellAdmin, found: &[Debris]) -> Result<(), Fault> {
    let tx = session.begin().await?;
    // Until the end nobody is put on the way, whose slot could be taken for debris.
    tx.lock_placement(Hold::Exclusive).await?;
    let spared = spared(&tx, cell).await?;
    // Only where something was found: the lock is not held for a look at a whole cell.
    let places = found.iter().filter_map(Debris::database).collect();
    let swept = sweep_in(cell.config(), &places, &spared).await;
    for debris in swept.map_err(unswept)? {
        tracing::warn!(cell = %cell.id(), "swept what a move had left: {debris:?}");
    }
    tx.commit().await
}

/// Tenants of whom nothing is debris: those on their way, and those who have a way back.
async fn spared(tx: &Tx<'_>, cell: &CellAdmin) -> Result<Vec<TenantId>, Fault> {
    let mut spared = tx.list_moving().await?;
    // Theirs is looked after by `ways`.
    let ways = tx.list_wanted_ways(cell.id()).await?;
    spared.extend(ways.iter().map(|way| way.tenant));
    Ok(spared)
}

/// Where the sweeper of one cell stands in its look at all databases. Each has to be visited, and a cell may
/// have thousands: so a round takes a few.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    /// The last one visited, by name.
    last: String,
    /// Whether all have been visited since the start.
    whole: bool,
    /// Whether the round in hand has failed before.
    again: bool,
}

impl Beat {
    /// The databases to visit in this round, and where it stands once they have been. If they have not, the
    /// next round tries them once more; then others have their turn, since there may be one that never answers.
    fn next(&mut self, all: &BTreeSet<String>) -> (Vec<String>, Self) {
        let share = if self.whole {
            all.len().div_ceil(ROUNDS)
        } else {
            FIRST_SHARE
        };
        let rest = all.iter().filter(|name| **name > self.last);
        let taken: Vec<String> = rest.take(share).cloned().collect();
        let after = match taken.last() {
            Some(last) if Some(last) != all.last() => Self {
                last: last.clone(),
                whole: self.whole,
                again: false,
            },
            _ => Self {
                whole: true,
                ..Self::default()
            },
        };
        if self.again {
            *self = after.clone();
        } else {
            self.again = true;
        }
        (taken, after)
    }
}

pub(super) fn unswept(error: Error) -> Fault {
    fault::DATABASE_UNAVAILABLE
        .fault("the cell can't be swept")
        .cause(error)
}

#[cfg(test)]
mod tests {
    use waangu_relocation::debris;
    use waangu_testkit::{Tier, connect, control, private_cell};

    use super::*;

    /// Debris in a database that is never visited stays for ever; one that visits all of them in each round
    /// does nothing else in a cell with thousands.
    #[test]
    fn every_database_is_visited_once_an_hour_and_few_at_a_time() {
        let all: BTreeSet<String> = (0..1000).map(|n| format!("waangu_t_{n}")).collect();
        let mut beat = Beat::default();
        for rounds in [1000 / FIRST_SHARE, ROUNDS] {
            let mut visited = BTreeSet::new();
            for _round in 0..rounds {
                let (taken, after) = beat.next(&all);
                beat = after;
                assert!(taken.len() <= FIRST_SHARE, "{}", taken.len());
                visited.extend(taken);
            }
            assert_eq!(visited, all);
        }
        let (few, mut beat) = (BTreeSet::from(["waangu".to_owned()]), Beat::default());
        for _round in 0..3 {
            let (taken, after) = beat.next(&few);
            beat = after;
            assert_eq!(taken, ["waangu"]);
        }
        assert!(beat.next(&BTreeSet::new()).0.is_empty());
    }

    /// What a failed look has not seen would wait for an hour; and a database that can't be visited must not
    /// keep the others from being swept.
    #[test]
    fn a_look_that_failed_is_tried_once_more() {
        let all: BTreeSet<String> = (0..3 * FIRST_SHARE).map(|n| format!("{n:03}")).collect();
        let mut beat = Beat::default();
        let mut first = || beat.next(&all).0.first().cloned();
        let looks = [first(), first(), first(), first(), first()];
        let looks = looks.map(Option::unwrap);
        assert_eq!(looks, ["000", "000", "020", "020", "040"]);
    }

    /// What nobody knows of any more fills a disk: no slot leads to it, and no recent move.
    #[tokio::test(flavor = "multi_thread")]
    async fn debris_that_no_recent_move_names_is_found_by_the_slow_look() {
        let (control, cell) = (control().await, private_cell().await);
        for _tenant in 0..3 {
            let (tenant, placement) = cell.tenant(Tier::Dedicated);
            let made = cell.admin.ensure_place(tenant, &placement).await;
            made.expect("a place");
        }
        let database = format!("waangu_t_{}", cell.tenant(Tier::Dedicated).0.number() - 1);
        let place = connect(&cell.superuser_dsn(&database))
            .await
            .expect("connect");
        let sql = "create publication waangu_move_99_a";
        place.batch_execute(sql).await.expect("a publication");
        let config = cell.admin.config();
        let left = async || debris(config).await.expect("look").len();
        let mut beat = Beat {
            last: database.clone(),
            whole: true,
            again: false,
        };
        let mut rounds = 0;
        while left().await > 0 {
            let swept = sweep_cell(&control.registry, &cell.admin, &mut beat, i64::MAX).await;
            swept.expect("sweep");
            rounds += 1;
            assert!(rounds <= 5, "a round visits one of five databases or fewer");
        }
        assert!(
            rounds > 1,
            "not in the first round: that visits one database only"
        );

        let slot = "select pg_create_logical_replication_slot('waangu_move_99_b', 'pgoutput')";
        place.batch_execute(slot).await.expect("a slot");
        place.batch_execute(sql).await.expect("a publication");
        let mut beat = Beat {
            last: database,
            whole: true,
            again: false,
        };
        let swept = sweep_cell(&control.registry, &cell.admin, &mut beat, i64::MAX).await;
        swept.expect("sweep");
        assert_eq!(left().await, 0, "a slot says where to look");
    }

    /// While its target is away, nobody works on a move, and its slot would hold log back without a bound.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_slot_that_holds_back_too_much_goes_whoever_wants_it() {
        let (control, cell) = (control().await, private_cell().await);
        let server = connect(&cell.superuser_dsn("waangu"))
            .await
            .expect("connect");
        let sql = "select pg_create_logical_replication_slot('waangu_move_99_a', 'pgoutput');
                   select pg_logical_emit_message(false, 'noise', repeat('x', 1000000))";
        server
            .batch_execute(sql)
            .await
            .expect("a slot that holds back");
        let dropped = drop_overdrawn(cell.admin.config(), 1 << 30).await;
        assert!(dropped.expect("look").is_empty(), "it may");
        let mut beat = Beat::default();
        let swept = sweep_cell(&control.registry, &cell.admin, &mut beat, 1 << 16).await;
        swept.expect("sweep");
        assert!(debris(cell.admin.config()).await.expect("look").is_empty());
    }
}
