//! What gateways keep of a hundred thousand tenants: how long it takes to read them, what a tenant costs
//! in memory, and how soon a change made through the admin API is known by every gateway.
//!
//! A platform of its own. Tenants, each with a user who has a role, are written by SQL into the registry
//! alone: a gateway reads nothing else.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use waangu_api::Client;
use waangu_api::types::{CreateUser, EntitlementView, UserView};
use waangu_kernel::Tier;

use super::crowd::{Crowd, registry_rows};
use super::onboarding::tenant;
use super::second::Second;
use super::{GROUP_SNAPSHOT, series};
use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::goal::Goal;
use crate::report::Report;

/// The tenant that is changed, and which limit of it.
const PROBE: &str = "probe";
const KEY: &str = "users";

/// Longest wait until a change is known.
const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway that has just read everything still tidies up.
const SETTLE: Duration = Duration::from_secs(2);

/// Pause between two looks at a gateway.
const GLANCE: Duration = Duration::from_millis(1);

/// So many tenants, and so many changes.
pub(super) async fn run(
    context: &Context,
    tenants: usize,
    changes: usize,
    report: &mut Report,
) -> Result<(), Failure> {
    context.progress.phase("the gateways' snapshot", changes);
    let crowd = Crowd::start(context).await?;
    let token = probe(&crowd).await?;
    let (few, quick, small) = gateway(&crowd).await?;
    drop(few);
    fill(&crowd, tenants).await?;
    let (second, slow, large) = gateway(&crowd).await?;
    let what = format!("a gateway's start until it serves: 1 tenant, {tenants} tenants");
    series(
        GROUP_SNAPSHOT,
        "load".to_owned(),
        "s",
        &what,
        vec![quick, slow],
        report,
    );
    let what = format!("PSS of a gateway: 1 tenant, {tenants} tenants");
    series(
        GROUP_SNAPSHOT,
        "memory".to_owned(),
        "MiB",
        &what,
        vec![small, large],
        report,
    );
    let count = f64::from(u32::try_from(tenants).of("tenants")?);
    let each = (large - small) * 1024.0 * 1024.0 / count;
    let name = format!("memory of a tenant in a gateway of {tenants}");
    report.goals.push(Goal::at_most(name, "B", each, 400.0));

    let port = |url: &str| {
        url.rsplit_once(':')
            .map_or(String::new(), |(_, port)| port.to_owned())
    };
    let doors = [
        port(&crowd.stage.platform.ready.gateway),
        second.address.port().to_string(),
    ];
    let doors = doors.map(|port| door(&crowd, &port, Some(&token)));
    let (mut acted, mut known) = (Vec::new(), Vec::new());
    for number in 0..changes {
        let (call, all) = change(&crowd, &doors, number).await?;
        acted.push(call);
        known.push(all);
        context.progress.step();
    }
    // Nearest rank, as everywhere here.
    let mut sorted = known.clone();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    let p99 = sorted.get(rank).copied().unwrap_or(f64::NAN);
    let what = "PUT of a tenant's limit until it is answered";
    series(
        GROUP_SNAPSHOT,
        "change".to_owned(),
        "ms",
        what,
        acted,
        report,
    );
    let what = format!(
        "from the same PUT's beginning until both gateways tell the new value; p99 {p99:.1}"
    );
    series(
        GROUP_SNAPSHOT,
        "known everywhere".to_owned(),
        "ms",
        &what,
        known,
        report,
    );
    let name = format!("p99 of a change known by two gateways of {tenants} tenants");
    report.goals.push(Goal::at_most(name, "ms", p99, 200.0));
    drop(second);
    crowd.stage.strike().await
}

/// A tenant with a user, whose token is returned.
async fn probe(crowd: &Crowd) -> Result<String, Failure> {
    tenant(&crowd.stage.admin, PROBE, Tier::Shared).await?;
    let user = CreateUser {
        username: "ada".to_owned(),
        roles: vec!["tenant-admin".to_owned()],
        ..CreateUser::default()
    };
    let path = format!("/tenants/{PROBE}/users");
    let user: UserView = crowd
        .stage
        .admin
        .send_json(Method::POST, &path, &user, None)
        .await?;
    let password = user.password.unwrap_or_default();
    let login = crowd
        .stage
        .admin
        .at(&crowd.stage.platform.ready.login, None);
    Ok(login.sign_in(&format!("ada@{PROBE}"), &password).await?)
}

/// One more gateway: itself, the seconds until it served, the memory that is its own in MiB.
async fn gateway(crowd: &Crowd) -> Result<(Second, f64, f64), Failure> {
    let own = crowd.stage.scratch.path("state").join("run/gateway.toml");
    let config = crowd.stage.scratch.path("second-gateway.toml");
    std::fs::copy(&own, &config).of(own.display())?;
    let began = Instant::now();
    let mut gateway = Second::start(&crowd.stage.scratch, "gateway", &config)?;
    let root = format!(
        "https://{}:{}",
        crowd.stage.platform.ready.domain,
        gateway.address.port()
    );
    gateway.answers(&crowd.stage.admin.at(&root, None)).await?;
    let took = began.elapsed().as_secs_f64();
    sleep(SETTLE).await;
    let memory = gateway.memory();
    let memory = memory.ok_or_else(|| Failure::new("a gateway's memory can't be seen"))?;
    Ok((gateway, took, memory))
}

/// The probe's own address at one gateway.
fn door(crowd: &Crowd, port: &str, token: Option<&str>) -> Client {
    let domain = &crowd.stage.platform.ready.domain;
    crowd
        .stage
        .admin
        .at(&format!("https://{PROBE}.{domain}:{port}"), token)
}

async fn fill(crowd: &Crowd, tenants: usize) -> Result<(), Failure> {
    crowd.registry.run(&registry_rows(tenants)).await?;
    let people = "begin;
        set local session_replication_role = replica;
        insert into registry.app_user (id, tenant_id, username, display_name, password_hash)
        select gen_random_uuid(), id, 'root', 'root', '' from registry.tenant where slug like 'crowd-%';
        insert into registry.user_role (tenant_id, user_id, role)
        select u.tenant_id, u.id, 'tenant-admin'
          from registry.app_user u
          join registry.tenant t on t.id = u.tenant_id and t.slug like 'crowd-%';
        commit;
        analyze registry.app_user, registry.user_role";
    crowd.registry.run(people).await
}

/// Milliseconds until a change was answered, and until all doors tell it.
async fn change(crowd: &Crowd, doors: &[Client], number: usize) -> Result<(f64, f64), Failure> {
    let value = json!(1000 + number);
    let path = format!("/tenants/{PROBE}/entitlements/{KEY}");
    let began = Instant::now();
    let body = json!({ "value": value });
    let _view: EntitlementView = crowd
        .stage
        .admin
        .send_json(Method::PUT, &path, &body, None)
        .await?;
    let answered = began.elapsed();
    let seen = doors.iter().map(|door| tells(door, &value));
    futures_util::future::try_join_all(seen).await?;
    Ok((milliseconds(answered), milliseconds(began.elapsed())))
}

/// Waits until a gateway tells this value.
async fn tells(door: &Client, value: &Value) -> Result<(), Failure> {
    let path = format!("/ofrep/v1/evaluate/flags/{KEY}");
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let context = json!({ "context": {} });
        let told: Value = door.send_json(Method::POST, &path, &context, None).await?;
        if told.get("value") == Some(value) {
            return Ok(());
        }
        sleep(GLANCE).await;
    }
    Err(Failure::new(format!(
        "a gateway does not learn that {KEY} is {value}"
    )))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
