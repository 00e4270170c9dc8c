//! A network that fails between the worker and one of the two servers, in every phase: every connection is
//! reset, or nothing comes through any more and nobody says so.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use waangu_relocation::{Error, Phase, Relocation, Request, Step, debris, stranded};
use waangu_testkit::{Cell, Relay, Tier, Way, private_cell};

use crate::support::{Spot, TABLES, Traveller, at};
use crate::writers::{Writers, found};

/// How long a silent end is waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// Longest time from the moment that the network is mended to the end of a move.
const RECOVERY: Duration = Duration::from_secs(30);

/// When the network fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// In this phase of a step.
    During(Phase),
    /// Between the commit point and the opening: nobody serves the tenant.
    BeforeOpen,
    /// With the target open.
    BeforeFinish,
}

const MOMENTS: [Moment; 6] = [
    Moment::During(Phase::Copy),
    Moment::During(Phase::Follow),
    Moment::During(Phase::Compare),
    Moment::During(Phase::Freeze),
    Moment::BeforeOpen,
    Moment::BeforeFinish,
];

/// A move that meets a cut.
struct Trial<'a> {
    request: Request,
    cut: &'a Relay,
    way: Way,
    moment: Moment,
}

impl Trial<'_> {
    /// One worker, until it has arrived or fails; the network fails at the moment.
    async fn work(&self) -> Result<(), Error> {
        let mut relocation = Relocation::begin(self.request.clone()).await?;
        loop {
            let step = relocation.next().await?;
            let fails_now = match step {
                Step::Done => return Ok(()),
                Step::Open => self.moment == Moment::BeforeOpen,
                Step::Finish => self.moment == Moment::BeforeFinish,
                _ => false,
            };
            if fails_now {
                self.cut.set(self.way);
            }
            let mut told = relocation.progress();
            let fail = async {
                let Moment::During(phase) = self.moment else {
                    return std::future::pending().await;
                };
                let begun = told
                    .wait_for(|now| now.phase == phase && (phase != Phase::Copy || now.rows > 0));
                if begun.await.is_ok() {
                    self.cut.set(self.way);
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                done = relocation.apply(&step) => done?,
                () = fail => {}
            }
        }
    }

    /// Workers, one after the other, until the tenant has arrived; the network is mended once the first has
    /// noticed, or has come through in spite of it.
    /// Says whether it was noticed.
    async fn run(&self) -> bool {
        let noticed = timeout(SILENCE * 20, self.work()).await;
        self.cut.set(Way::Open);
        if noticed.expect("it is noticed in time").is_ok() {
            return false;
        }
        let mended = Instant::now();
        loop {
            match crate::support::run(self.request.clone()).await {
                Ok(_arrived) => return true,
                Err(Error::Busy | Error::Pause(_) | Error::Database(_) | Error::Cell(_)) => {}
                Err(other) => unreachable!("{:?}: {other}", self.moment),
            }
            assert!(mended.elapsed() < RECOVERY, "{:?}", self.moment);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// At how many of these places the tenant's door is open.
async fn open_doors(tenant: &Traveller<'_>, old: (&Cell, &waangu_kernel::Placement)) -> i64 {
    let mut doors = 0;
    for (cell, placement) in [old, (tenant.cell, &tenant.placement)] {
        let sql = "select count(*) from waangu.home where tenant_id = $1 and state = 'active'";
        let place = at(cell, tenant.tenant, placement).await;
        let row = place.query_one(sql, &[&tenant.tenant.number()]).await;
        doors += row.expect("look").get::<_, i64>(0);
    }
    doors
}

async fn every_moment(way: Way) {
    let (a, b) = (private_cell().await, private_cell().await);
    let (to_a, to_b) = (
        Relay::start(a.admin_config().port).await,
        Relay::start(b.admin_config().port).await,
    );
    let mut here = (&a, &to_a, Tier::Schema);
    let mut there = (&b, &to_b, Tier::Dedicated);
    let mut tenant = Traveller::settle(Spot(&a, Tier::Schema), TABLES).await;
    tenant.options.silence = SILENCE;
    // So that a copy can be met.
    tenant.options.rate = Some(2_000_000);
    let writers = Writers::start(&tenant, 2);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut noticed = 0;
    for moment in MOMENTS {
        for end in ["source", "target"] {
            let to = Spot(there.0, there.2);
            let mut request = tenant.request(to);
            request.source.cell.port = here.1.port();
            request.target.cell.port = there.1.port();
            let trial = Trial {
                request,
                cut: if end == "source" { here.1 } else { there.1 },
                way,
                moment,
            };
            noticed += u32::from(trial.run().await);
            let old = (tenant.cell, tenant.placement.clone());
            tenant.placement = tenant.placement_at(to.1);
            tenant.cell = to.0;
            std::mem::swap(&mut here, &mut there);
            let doors = open_doors(&tenant, (old.0, &old.1)).await;
            assert_eq!(doors, 1, "{moment:?}, {end}");
            writers.follow(&tenant);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(noticed >= 10, "the network failed in vain: {noticed} of 12");
    is_whole(writers, &tenant).await;
    is_clean(&a).await;
    is_clean(&b).await;
}

async fn is_whole(writers: Writers, tenant: &Traveller<'_>) {
    let (ledger, _) = writers.end().await;
    assert!(ledger.len() > 20, "writers worked: {}", ledger.len());
    assert_eq!(found(tenant).await, ledger);
}

async fn is_clean(cell: &Cell) {
    let config = cell.admin_config();
    let left = debris(&config).await.expect("look for debris");
    assert!(left.is_empty(), "{left:?}");
    let left = stranded(&config).await.expect("look for the stranded");
    assert!(left.is_empty(), "{left:?}");
}

/// A connection that breaks at the wrong moment would lose acknowledged writes, open two places or none, or
/// leave something behind that fills a disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_survives_a_cut_to_either_end_in_every_phase() {
    every_moment(Way::Cut).await;
}

/// As above; and who waits for a server that says nothing would keep the tenant from everybody else who could
/// go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_survives_silence_of_either_end_in_every_phase() {
    every_moment(Way::Silent).await;
}
