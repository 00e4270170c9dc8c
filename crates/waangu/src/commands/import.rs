//! `waangu tenant import`: many tenants from a file.
//!
//! Invariants:
//! - a line that fails keeps no other from being made, unless that was asked for;
//! - it may be ended at any moment and run again: each line's request has an idempotency key that
//!   follows from the line, and what is there already, as the line says, counts as done;
//! - the platform checks; here is checked only what it would refuse for the same reason, and what only
//!   the file as a whole can show (duplicates, circles of parents).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};
use waangu_api::types::{CellView, CreateTenant, List, PlacementView, TenantView};
use waangu_api::{Client, ClientError};
use waangu_identity::sha256_hex;
use waangu_kernel::fault;

use self::file::{Wish, Wishes};
use self::order::{Order, order};
use self::report::{Mistake, Outcome, Report, Status};
use super::admin;
use crate::cli::{Global, TenantImport};
use crate::failure::Failure;

mod file;
mod order;
mod report;

/// Attempts at one line while the platform does not answer or is busy: together about half a minute,
/// in which a control plane that was killed is back.
const ATTEMPTS: u32 = 9;

/// The first pause between two attempts; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What is done with each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Its tenant is made.
    Make,
    /// It is checked.
    Check,
}

/// Imports a file.
pub(super) async fn run(global: &Global, wish: TenantImport) -> Result<(), Failure> {
    let client = admin(global)?;
    let wishes = file::read(&wish.file)?;
    if wish.all_or_nothing && !wish.dry_run {
        let report = all(&client, &wishes, Mode::Check, wish.parallel).await?;
        if report.has_failed() {
            return report.print(global);
        }
    }
    let mode = if wish.dry_run {
        Mode::Check
    } else {
        Mode::Make
    };
    all(&client, &wishes, mode, wish.parallel)
        .await?
        .print(global)
}

/// Does all lines, parents before their children, so many at once.
async fn all(
    client: &Client,
    wishes: &Wishes,
    mode: Mode,
    parallel: usize,
) -> Result<Report, Failure> {
    let begun = Instant::now();
    let bar = bar(wishes.wishes.len(), mode);
    let order = order(&wishes.wishes);
    let mut ended: HashMap<usize, Outcome> = HashMap::new();
    let mut ready: VecDeque<usize> = order.roots.iter().copied().collect();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < parallel
            && let Some(at) = ready.pop_front()
            && let Some(wish) = wishes.wishes.get(at)
        {
            let parent = order.parent.get(&at);
            let parent = parent
                .and_then(|parent| Some((wishes.wishes.get(*parent)?, ended.get(parent)?.status)));
            running.push(async move { (at, one(client, wish, mode, parent).await) });
        }
        let Some((at, line)) = running.next().await else {
            break;
        };
        ended.insert(at, line);
        ready.extend(order.below.get(&at).into_iter().flatten());
        bar.inc(1);
    }
    bar.finish_and_clear();
    let Order { mistakes, .. } = order;
    let lines = ended.into_values().chain(mistakes);
    let lines = lines.chain(wishes.mistakes.iter().cloned()).collect();
    let mut report = Report::new(mode == Mode::Check, lines, begun.elapsed());
    if mode == Mode::Check {
        report.warnings = crowded(client, report.lines()).await?;
    }
    Ok(report)
}

/// One line, with its parent in the file and what became of it.
async fn one(client: &Client, wish: &Wish, mode: Mode, parent: Option<(&Wish, Status)>) -> Outcome {
    let done = match mode {
        Mode::Make => make(client, &wish.body).await,
        Mode::Check => check(client, &wish.body, parent).await,
    };
    match done {
        Ok((status, placement)) => Outcome {
            line: wish.line,
            slug: wish.body.slug.clone(),
            status,
            placement: Some(placement),
            mistake: None,
        },
        Err(mistake) => Outcome::failed(wish.line, wish.body.slug.clone(), mistake),
    }
}

async fn make(client: &Client, wish: &CreateTenant) -> Result<(Status, PlacementView), Mistake> {
    let key = key(wish)?;
    let made = patiently(|| client.onboard(wish, &key)).await;
    let onboarded = match made {
        Ok(onboarded) => onboarded,
        Err(error) => return existing(client, wish, error).await,
    };
    let operation = &onboarded.accepted.operation;
    if operation.status != "succeeded" {
        let why = operation.error.as_deref().unwrap_or("no reason was given");
        let why = format!("operation {} {}: {why}", operation.id, operation.status);
        return Err(Mistake::new("operation-failed", None, why));
    }
    if onboarded.replayed {
        // Done by an earlier run; whether it still stands is another question.
        let tenant = get(client, wish).await?;
        return same(wish, tenant).map(|placement| (Status::Exists, placement));
    }
    Ok((Status::Created, onboarded.accepted.placement))
}

async fn check(
    client: &Client,
    wish: &CreateTenant,
    parent: Option<(&Wish, Status)>,
) -> Result<(Status, PlacementView), Mistake> {
    let (mut wish, mut country) = (wish.clone(), None);
    match parent {
        Some((parent, Status::Failed)) => {
            let why = format!("its parent in line {} can't be made", parent.line);
            return Err(Mistake::new(
                fault::PARENT_UNKNOWN.code,
                Some("parent"),
                why,
            ));
        }
        Some((parent, Status::Possible)) => {
            wish.parent = None;
            country = Some(parent.body.country.as_str());
        }
        Some((_, Status::Created | Status::Exists)) | None => {}
    }
    match patiently(|| client.rehearse(&wish, country)).await {
        Ok(rehearsed) => Ok((Status::Possible, rehearsed.placement)),
        Err(error) => existing(client, &wish, error).await,
    }
}

/// A slug that is taken may be taken by the very tenant that the line asks for.
async fn existing(
    client: &Client,
    wish: &CreateTenant,
    error: ClientError,
) -> Result<(Status, PlacementView), Mistake> {
    match &error {
        ClientError::Refused(problem) if problem.code == fault::SLUG_TAKEN.code => {}
        _ => return Err(error.into()),
    }
    match get(client, wish).await {
        Ok(tenant) => same(wish, tenant).map(|placement| (Status::Exists, placement)),
        // Its slug is kept for a while after it has gone.
        Err(_gone) => Err(error.into()),
    }
}

async fn get(client: &Client, wish: &CreateTenant) -> Result<TenantView, ClientError> {
    let path = format!("/tenants/{}", wish.slug);
    patiently(|| client.get(&path)).await
}

/// Whether a tenant is what a line asks for; what the line leaves open is as it likes.
fn same(wish: &CreateTenant, tenant: TenantView) -> Result<PlacementView, Mistake> {
    let on = tenant.modules.iter().filter(|module| module.enabled);
    let mut on: Vec<&String> = on.map(|module| &module.module).collect();
    let mut wanted: Vec<&String> = wish.modules.iter().flatten().collect();
    on.sort();
    wanted.sort();
    let open =
        |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|text| text == has);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let checks = [
        ("name", wish.name == tenant.name, tenant.name.clone()),
        (
            "country",
            wish.country == tenant.country,
            tenant.country.clone(),
        ),
        (
            "parent",
            open(&wish.parent, &text(&tenant.parent)),
            text(&tenant.parent),
        ),
        (
            "profile",
            open(&wish.profile, &text(&tenant.profile)),
            text(&tenant.profile),
        ),
        (
            "tier",
            open(&wish.tier, &tenant.placement.tier),
            tenant.placement.tier.clone(),
        ),
        (
            "plan",
            open(&wish.plan, &text(&tenant.plan)),
            text(&tenant.plan),
        ),
        (
            "modules",
            wish.modules.is_none() || on == wanted,
            format!("{on:?}"),
        ),
    ];
    match checks.into_iter().find(|(_, same, _)| !same) {
        None => Ok(tenant.placement),
        Some((field, _, has)) => {
            let why = format!("there is a tenant of this slug with another {field}: `{has}`");
            Err(Mistake::new(fault::SLUG_TAKEN.code, Some(field), why))
        }
    }
}

/// The same for the same line, in whatever file and place it stands.
fn key(wish: &CreateTenant) -> Result<String, Mistake> {
    let text = serde_json::to_string(wish)
        .map_err(|error| Mistake::new("malformed-line", None, error.to_string()))?;
    Ok(format!("import-{}", sha256_hex(text.as_bytes())))
}

/// Asks again while the platform does not answer or is busy.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut pause = FIRST_PAUSE;
    for _attempt in 1..ATTEMPTS {
        match ask().await {
            Err(ClientError::Unreachable(_)) => {}
            Err(ClientError::Refused(problem))
                if matches!(problem.status, 429 | 502 | 503 | 504) => {}
            answered => return answered,
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    ask().await
}

/// Cells that have less room than the possible tenants need: each line was checked by itself.
async fn crowded(client: &Client, lines: &[Outcome]) -> Result<Vec<String>, Failure> {
    let mut wanted: BTreeMap<&str, i64> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.status == Status::Possible) {
        if let Some(place) = &line.placement {
            *wanted.entry(&place.cell).or_default() += 1;
        }
    }
    let cells: List<CellView> = client.get("/cells").await?;
    let free = |cell: &CellView| i64::from(cell.capacity) - cell.tenants;
    let crowded = cells.items.iter().filter_map(|cell| {
        let wanted = *wanted.get(cell.id.as_str())?;
        let free = free(cell);
        (wanted > free).then(|| format!("cell {} has room for {free} of {wanted}", cell.id))
    });
    Ok(crowded.collect())
}

/// Progress on stderr; silent where that is not a terminal.
fn bar(lines: usize, mode: Mode) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(lines).unwrap_or(u64::MAX));
    let template = "{msg} {bar:30} {pos}/{len} ({per_sec}, {eta} to go)";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(match mode {
        Mode::Make => "onboarding",
        Mode::Check => "checking",
    });
    bar
}
