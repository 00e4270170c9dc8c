//! `waangu advisor`: where tenants would be better off.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};
use waangu_api::Client;
use waangu_api::advisor::{
    ActView, AdviceView, AdvisorRoundView, AdvisorView, FigureView, TenantAdvice,
};

use super::{admin, segment};
use crate::cli::{AdvisorOptions, Global};
use crate::failure::Failure;
use crate::output::{print, talk};

/// Pause between two looks at a round.
const LOOK: Duration = Duration::from_millis(300);

/// Longest wait for a round. It goes on without us.
const PATIENCE: Duration = Duration::from_mins(5);

pub(crate) async fn advisor(global: &Global, options: AdvisorOptions) -> Result<(), Failure> {
    let client = admin(global)?;
    if options.look {
        look(&client).await?;
    }
    match options.slug {
        Some(slug) => {
            let path = format!("/tenants/{}/advice", segment(&slug)?);
            one(global, &client.get(&path).await?)
        }
        None => all(global, &client.get("/advisor").await?),
    }
}

async fn look(client: &Client) -> Result<(), Failure> {
    let wanted: AdvisorRoundView = client
        .send_json(Method::POST, "/advisor/rounds", &json!({}), None)
        .await?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let now: AdvisorView = client.get("/advisor").await?;
        let over = |round: &AdvisorRoundView| round.id > wanted.id || round.finished_at.is_some();
        if now.round.as_ref().is_some_and(over) {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    Err(Failure::failed(format!(
        "round {} is not over yet; ask again without --look",
        wanted.id
    )))
}

fn all(global: &Global, view: &AdvisorView) -> Result<(), Failure> {
    match &view.round {
        Some(round) => talk(&told(round)),
        None => talk("nothing was measured yet; --look does it now"),
    }
    let by_itself = view.policies.iter().any(|policy| policy.act == "move");
    let left = if by_itself {
        "whom a policy lets it, the advisor moves by itself"
    } else {
        "nothing is moved by itself"
    };
    talk(&format!(
        "{left}; to follow a proposal: `waangu tenant move SLUG --to TIER`"
    ));
    for act in &view.acts {
        talk(&acted(act));
    }
    if view.more {
        talk("there is more than is shown");
    }
    let rows = view
        .items
        .iter()
        .map(|advice| {
            let mut row = vec![
                advice.tenant.clone(),
                format!("{} on {}", advice.tier_now, advice.cell_now),
            ];
            row.extend(proposal(advice));
            row
        })
        .collect();
    let header = ["tenant", "now", "better", "criteria", "evidence", "state"];
    print(global.output, view, &header, rows)
}

fn one(global: &Global, view: &TenantAdvice) -> Result<(), Failure> {
    let place = format!("{} on {}", view.tier, view.cell);
    let mut rows = vec![vec!["lives in".to_owned(), place]];
    let measured = match view.measured_at {
        Some(at) => at.to_string(),
        None => "not yet; --look does it now".to_owned(),
    };
    rows.push(vec!["measured".to_owned(), measured]);
    let figures: Vec<String> = view.figures.iter().map(figure).collect();
    rows.push(vec!["uses".to_owned(), figures.join("\n")]);
    if view.items.is_empty() {
        rows.push(vec![
            "advice".to_owned(),
            "none: it is well where it is".to_owned(),
        ]);
    }
    for advice in &view.items {
        let mut lines = proposal(advice);
        lines.extend(advice.reasons.clone());
        lines.extend(follow(advice));
        rows.push(vec!["advice".to_owned(), lines.join("\n")]);
    }
    print(global.output, view, &["", "value"], rows)
}

/// Where to, by which criteria, on what evidence, since when.
fn proposal(advice: &AdviceView) -> Vec<String> {
    let cell = match &advice.cell {
        Some(cell) => format!("on {cell}"),
        None => "but no cell would take it".to_owned(),
    };
    vec![
        format!("{} {cell}", advice.tier),
        advice.criteria.join(", "),
        advice.evidence.join("\n"),
        match &advice.held {
            Some(held) => format!("{} since {}\n{held}", advice.state, advice.since),
            None => format!("{} since {}, to be moved", advice.state, advice.since),
        },
    ]
}

/// What the advisor has done by itself.
fn acted(act: &ActView) -> String {
    let mut text = format!(
        "{}: {} to {} on {} by {}: {}",
        act.at,
        act.tenant,
        act.tier,
        act.cell,
        act.criteria.join(", "),
        act.outcome
    );
    if let Some(error) = &act.error {
        text.push_str(": ");
        text.push_str(error);
    }
    text
}

/// The command that does what is proposed.
fn follow(advice: &AdviceView) -> Option<String> {
    let cell = advice.cell.as_ref()?;
    let cell = (*cell != advice.cell_now).then(|| format!(" --cell {cell}"));
    Some(format!(
        "to follow it: waangu tenant move {} --to {}{}",
        advice.tenant,
        advice.tier,
        cell.unwrap_or_default()
    ))
}

fn figure(figure: &FigureView) -> String {
    let name = figure.name.replace('_', " ");
    format!(
        "{} {name}; tier {} from {} on",
        figure.value, figure.tier, figure.bound
    )
}

fn told(round: &AdvisorRoundView) -> String {
    let cost = &round.cost;
    let mut text = match round.finished_at {
        Some(at) => format!(
            "looked at {} tenants on {} cells at {at}: {} queries, {} pages of shared tables, {} ms",
            cost.tenants, cost.cells, cost.queries, cost.pages, cost.ms
        ),
        None => "a look is under way".to_owned(),
    };
    if let Some(error) = &round.error {
        text.push_str("; not measured: ");
        text.push_str(error);
    }
    text
}
