//! What a dry run looks at. It only reads, within bounds.

use std::time::Duration;

use waangu_api::relocation::{CheckView, RelocationView};
use waangu_kernel::{Fault, ModuleId, fault};
use waangu_registry::{NewRelocation, Tenant, Tx};
use waangu_relocation::{Outlook, look_back};
use waangu_tenancy::admin::{MoveFacts, TenantRows};

use super::place;
use super::target::way_back;
use crate::bounds::in_time;
use crate::relocation::{Moved, request, tables};
use crate::server::App;

/// Longest look at a cell.
const LOOK: Duration = Duration::from_secs(10);

/// Bytes that are copied in a second, about.
const PACE: i64 = 10_000_000;

/// The move as it would be, with its checks.
pub(super) async fn draft(
    app: &App,
    tx: &Tx<'_>,
    tenant: &Tenant,
    new: &NewRelocation,
) -> Result<RelocationView, Fault> {
    let modules = tables(&app.reconciler, tx, tenant).await?;
    let outlook = outlook(app, tx, tenant, new, &modules).await?;
    let modules: Vec<ModuleId> = modules
        .iter()
        .map(|module| module.package.id().clone())
        .collect();
    let source = app.reconciler.cell(&new.from.cell)?;
    let target = app.reconciler.cell(&new.to.cell)?;
    let (facts, rows, there) = tokio::join!(
        in_time(LOOK, source.move_facts()),
        in_time(LOOK, source.tenant_rows(tenant.id, &new.from, &modules)),
        in_time(LOOK, target.move_facts()),
    );
    let mut checks = vec![fine(
        "residency, capacity, service level",
        new.reasons.join("; "),
    )];
    match &facts {
        Ok(facts) => checks.extend(source_checks(facts)),
        Err(fault) => checks.push(bad("source cell answers", fault)),
    }
    match &rows {
        Ok(rows) => checks.push(identity(rows)),
        Err(fault) => checks.push(bad("tables", fault)),
    }
    if let Err(fault) = &there {
        checks.push(bad("target cell answers", fault));
    }
    let cells = tx.list_cells().await?;
    let room = cells.iter().find(|cell| cell.id == new.to.cell);
    let bytes = rows.as_ref().ok().and_then(|rows| rows.bytes);
    checks.push(room_check(room, bytes));
    let is_warm = matches!(outlook, Some(Ok(Outlook::Warm(_))));
    checks.extend(outlook.map(outlook_check));
    // Rows that are there are still compared with those here.
    let pace = match new.rate.unwrap_or(PACE).clamp(1, PACE) {
        _ if is_warm => PACE * 10,
        pace => pace,
    };
    let seconds = bytes.and_then(|bytes| i32::try_from(bytes / pace).ok());
    Ok(RelocationView {
        id: None,
        tenant: tenant.slug.to_string(),
        from: place(&new.from, tenant.id),
        to: place(&new.to, tenant.id),
        phase: "draft".to_owned(),
        reasons: new.reasons.clone(),
        why: new.why.clone(),
        actor: new.actor.clone(),
        max_pause_ms: new.max_pause_ms,
        rate: new.rate,
        cancel_wanted: false,
        table: None,
        rows: rows.as_ref().ok().and_then(|rows| rows.rows).unwrap_or(0),
        bytes: 0,
        total_bytes: if is_warm { Some(0) } else { bytes },
        lag_bytes: None,
        eta_seconds: seconds.map(|seconds| f64::from(seconds) + 1.0),
        pause_ms: None,
        attempts: 0,
        error: None,
        checks,
        trail: Vec::new(),
        created_at: None,
        started_at: None,
        switched_at: None,
        finished_at: None,
        clean_at: None,
        cleaned_at: None,
        adopted: is_warm,
        way_back: None,
    })
}

/// What a move to the place that the tenant has left last would be; nothing of another one.
async fn outlook(
    app: &App,
    tx: &Tx<'_>,
    tenant: &Tenant,
    new: &NewRelocation,
    modules: &[Moved],
) -> Result<Option<Result<Outlook, Fault>>, Fault> {
    let Ok(last) = way_back(tx, tenant).await else {
        return Ok(None);
    };
    let (left, to) = (&last.from, &new.to);
    if (&left.cell, left.tier, left.bucket) != (&to.cell, to.tier, to.bucket) {
        return Ok(None);
    }
    let request = request(&app.reconciler, tenant.id, (&new.from, &new.to), modules)?;
    let look = async {
        look_back(&request).await.map_err(|error| {
            fault::DATABASE_UNAVAILABLE
                .fault("the old place can't be looked at")
                .cause(error)
        })
    };
    Ok(Some(in_time(LOOK, look).await))
}

fn outlook_check(outlook: Result<Outlook, Fault>) -> CheckView {
    let found = match outlook {
        Ok(Outlook::Warm(held)) => format!(
            "the rows are there still; the changes since, in {} kB of the log, are brought",
            held >> 10
        ),
        Ok(Outlook::Copy(why)) => format!("with a copy: {why}"),
        Err(fault) => return bad("way back", &fault),
    };
    fine("way back", found)
}

fn source_checks(facts: &MoveFacts) -> Vec<CheckView> {
    let slots = CheckView {
        check: "replication slots of the source".to_owned(),
        // The move's own, and one that shortens what is read again.
        fine: facts.free_slots >= 2,
        found: format!("{} free of max_replication_slots", facts.free_slots),
    };
    let bound = match facts.slot_bound {
        Some(bytes) => format!("max_slot_wal_keep_size is {} MB", bytes >> 20),
        None => "max_slot_wal_keep_size is not set: only the move itself bounds it".to_owned(),
    };
    vec![
        CheckView {
            check: "wal_level of the source".to_owned(),
            fine: facts.wal_level == "logical",
            found: facts.wal_level.clone(),
        },
        slots,
        fine("log held back", bound),
    ]
}

fn identity(rows: &TenantRows) -> CheckView {
    CheckView {
        check: "primary keys and replica identity".to_owned(),
        fine: rows.unfit.is_empty(),
        found: if rows.unfit.is_empty() {
            format!("{} tables, all fit", rows.tables)
        } else {
            format!("unfit: {}", rows.unfit.join(", "))
        },
    }
}

/// Free disk is not knowable by SQL; what is declared and was measured is.
fn room_check(cell: Option<&waangu_registry::Cell>, bytes: Option<i64>) -> CheckView {
    let bound = cell.and_then(|cell| Some((cell.usage?.bytes, cell.capacity_bytes?)));
    let (fine, found) = match (bound, bytes) {
        (Some((held, most)), Some(more)) => (
            held + more <= most,
            format!(
                "{} MB held, {} MB more, of {} MB declared",
                held / 1_000_000,
                more / 1_000_000,
                most / 1_000_000
            ),
        ),
        (Some(_), None) => (
            true,
            "the tenant is too large to be measured now".to_owned(),
        ),
        (None, _) => (
            true,
            "the cell declares no bound of bytes, or was not measured yet".to_owned(),
        ),
    };
    CheckView {
        check: "room at the target".to_owned(),
        fine,
        found,
    }
}

fn fine(check: &str, found: String) -> CheckView {
    CheckView {
        check: check.to_owned(),
        fine: true,
        found,
    }
}

fn bad(check: &str, fault: &Fault) -> CheckView {
    CheckView {
        check: check.to_owned(),
        fine: false,
        found: crate::reconcile::operator_text(fault),
    }
}
