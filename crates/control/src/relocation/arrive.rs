//! From the fence to the new place's first writer: nobody serves the tenant, so what can wait does.
//!
//! Invariant: the registry names the new place only behind the fence, and in any case if the new place
//! does not open: then any worker, the watchman first, goes on from there.

use std::time::Duration;

use tokio::time::timeout;
use waangu_kernel::Fault;
use waangu_registry::{Phase, Relocation, Session, Tx};
use waangu_relocation::{Error, Step};

use super::Movers;
use super::order::Order;
use super::ride::Ride;

/// So long the new place may take to open before gateways hear of it. Who hears of it finds it open
/// then, and need not ask twice.
const HEAD_START: Duration = Duration::from_millis(300);

impl Movers {
    /// Opens the new place, and makes the registry name it. While it opens the registry's transaction
    /// is made; it commits behind the opening.
    pub(super) async fn arrive(
        &self,
        session: &mut Session,
        moved: &Relocation,
        order: &Order,
        ride: &mut Ride,
    ) -> Result<Result<(), Error>, Fault> {
        let opened = {
            let opening = ride.apply(&Step::Open);
            tokio::pin!(opening);
            let tx = session.begin().await?;
            let naming = name(&tx, moved, order);
            let (named, opened) = tokio::join!(naming, timeout(HEAD_START, &mut opening));
            named?;
            tx.commit().await?;
            match opened {
                Ok(opened) => opened,
                Err(_late) => opening.await,
            }
        };
        super::drive::report(session, moved, &ride.rein(), ride.pause_us()).await?;
        Ok(opened)
    }

    /// Makes the registry name the new place.
    pub(super) async fn switch(
        &self,
        session: &mut Session,
        moved: &Relocation,
        order: &Order,
    ) -> Result<(), Fault> {
        let tx = session.begin().await?;
        name(&tx, moved, order).await?;
        tx.commit().await
    }
}

/// Place, epoch and tables change in one transaction.
async fn name(tx: &Tx<'_>, moved: &Relocation, order: &Order) -> Result<(), Fault> {
    tx.switch_placement(moved, &order.tables).await?;
    let text = "fenced; the new place opens";
    tx.move_on(moved.id, Phase::Switching, text).await
}
