//! `/promotions`: which module version may go to which environment.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use waangu_api::Problem;
use waangu_api::promotion::{
    Promote, PromotionRecord, PromotionView, RECORD_VERSION, RunView, WaitingView,
};
use waangu_kernel::{Fault, ModuleId, fault};
use waangu_registry::{ModuleRun, Promotion, Tx};

use super::call::{Begun, Call, Change, reply, send};
use super::create::module_id;
use crate::config::Config;
use crate::promotion::Known;
use crate::reply::{RawBody, Refusal};
use crate::server::App;

/// Most lines of a record.
const RECORD_LIMIT: usize = 2000;

/// What this installation knows of versions and environments.
#[utoipa::path(get, path = "/promotions", operation_id = "promotions.list", tag = "promotions",
    responses((status = 200, body = PromotionRecord), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<PromotionRecord>, Refusal> {
    let mut session = app.registry.session().await?;
    let known = Facts::read(&session.begin().await?).await?;
    Ok(Json(known.record(&app.config)))
}

/// Lets an environment receive a version that the one before it has run.
#[utoipa::path(post, path = "/promotions", operation_id = "promotions.create", tag = "promotions",
    request_body = Promote,
    responses((status = 201, body = PromotionRecord), (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    call: Call,
    body: RawBody,
) -> Result<Response, Refusal> {
    let Promote {
        module,
        version,
        to,
    } = body.parse()?;
    let module = module_id(&module).map_err(|fault| fault.field("module"))?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let facts = Facts::read(&change.tx).await?;
    let version = match version {
        Some(version) => version,
        None => facts.known().newest(&module, &to)?,
    };
    facts.known().check(&module, &version, &to)?;
    let new = change
        .tx
        .put_promotion(&to, &module, &version, &call.actor)
        .await?;
    let record = Facts::read(&change.tx).await?.record(&app.config);
    let answer = reply(StatusCode::CREATED, None, &record)?;
    if !new {
        return Ok(send(change.finish(answer).await?));
    }
    let detail = json!({ "module": module, "version": version, "to": to });
    Ok(send(
        change
            .commit_global("module.promote", &detail, answer)
            .await?,
    ))
}

/// Takes in the record of another environment's installation.
#[utoipa::path(post, path = "/promotions/import", operation_id = "promotions.import",
    tag = "promotions", request_body = PromotionRecord,
    responses((status = 200, body = PromotionRecord), (status = "default", body = Problem)))]
pub(super) async fn import(
    State(app): State<Arc<App>>,
    call: Call,
    body: RawBody,
) -> Result<Response, Refusal> {
    let told: PromotionRecord = body.parse()?;
    check(&told, &app.config)?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let news = take_in(&change.tx, &app.config, &told).await?;
    let record = Facts::read(&change.tx).await?.record(&app.config);
    let answer = reply(StatusCode::OK, None, &record)?;
    if news == 0 {
        return Ok(send(change.finish(answer).await?));
    }
    let detail = json!({ "from": told.environment, "new": news });
    Ok(send(
        change
            .commit_global("promotion.import", &detail, answer)
            .await?,
    ))
}

fn check(told: &PromotionRecord, config: &Config) -> Result<(), Fault> {
    let refuse =
        |detail: String, field: &'static str| Err(fault::INVALID_FIELD.fault(detail).field(field));
    if told.version != RECORD_VERSION {
        return refuse(
            format!(
                "version {} is not known here; {RECORD_VERSION} is",
                told.version
            ),
            "version",
        );
    }
    if told.environment == config.environment {
        return refuse(
            format!("this installation is {} itself", told.environment),
            "environment",
        );
    }
    if told.runs.len().saturating_add(told.promotions.len()) > RECORD_LIMIT {
        return refuse(format!("a record has at most {RECORD_LIMIT} lines"), "runs");
    }
    Ok(())
}

/// Adds what is new in a record: what others ran, and what may go where by the rule that holds here
/// too. What this environment ran it knows itself. Returns how much was new.
async fn take_in(tx: &Tx<'_>, config: &Config, told: &PromotionRecord) -> Result<usize, Fault> {
    let mut news = 0_usize;
    let environments = tx.list_environments().await?;
    for run in &told.runs {
        if run.environment == config.environment || !environments.contains(&run.environment) {
            continue;
        }
        let module = module_id(&run.module).map_err(|fault| fault.field("runs"))?;
        let new = tx
            .record_module_run(&run.environment, &module, &run.version, Some(run.since))
            .await?;
        news = news.saturating_add(usize::from(new));
    }
    let facts = Facts::read(tx).await?;
    for promotion in &told.promotions {
        let module = module_id(&promotion.module).map_err(|fault| fault.field("promotions"))?;
        let (to, version) = (&promotion.environment, &promotion.version);
        if !environments.contains(to) {
            continue;
        }
        facts.known().check(&module, version, to)?;
        let new = tx
            .put_promotion(to, &module, version, &promotion.actor)
            .await?;
        news = news.saturating_add(usize::from(new));
    }
    Ok(news)
}

/// What is stored about versions and environments.
pub(crate) struct Facts {
    environments: Vec<String>,
    runs: Vec<ModuleRun>,
    promotions: Vec<Promotion>,
}

impl Facts {
    /// Reads them.
    pub(crate) async fn read(tx: &Tx<'_>) -> Result<Self, Fault> {
        Ok(Self {
            environments: tx.list_environments().await?,
            runs: tx.list_module_runs().await?,
            promotions: tx.list_promotions().await?,
        })
    }

    /// What can be decided on them.
    pub(crate) fn known(&self) -> Known<'_> {
        Known {
            environments: &self.environments,
            runs: &self.runs,
            promotions: &self.promotions,
        }
    }

    fn record(self, config: &Config) -> PromotionRecord {
        let run = |run: ModuleRun| RunView {
            environment: run.environment,
            module: run.module.into(),
            version: run.version,
            since: run.since,
        };
        let promotion = |promotion: Promotion| PromotionView {
            environment: promotion.environment,
            module: promotion.module.into(),
            version: promotion.version,
            actor: promotion.actor,
            at: promotion.at,
        };
        let waiting = |(module, version): &(ModuleId, String)| WaitingView {
            module: module.to_string(),
            version: version.clone(),
        };
        PromotionRecord {
            version: RECORD_VERSION,
            environment: config.environment.clone(),
            runs: self.runs.into_iter().map(run).collect(),
            promotions: self.promotions.into_iter().map(promotion).collect(),
            waiting: config.waiting.iter().map(waiting).collect(),
        }
    }
}
