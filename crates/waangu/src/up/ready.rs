//! The ready file and the table: where everything is.

use std::path::Path;
use std::time::Duration;

use waangu_api::Ready;
use waangu_api::ready::{Admin, ReadyCell};
use waangu_kernel::placement::SHARED_DATABASE;
use waangu_process::file::write_private;

use super::files::Layout;
use super::secrets::Secrets;
use super::state::State;
use crate::failure::{Failure, Of as _};
use crate::output::{line, table, talk};

/// Version of the ready file's form.
const VERSION: u32 = 1;

/// What the platform tells about itself.
pub(crate) fn describe(layout: &Layout<'_>) -> Result<Ready, Failure> {
    let secrets = layout.secrets;
    let cells = layout
        .servers
        .iter()
        .map(|server| ReadyCell {
            id: server.id.to_string(),
            region: server.region.to_string(),
            superuser_dsn: server.superuser_dsn(SHARED_DATABASE),
            module_dsns: logins(secrets)
                .map(|(name, password)| {
                    let login = format!("waangu_{name}");
                    (name, server.dsn(&login, password, SHARED_DATABASE))
                })
                .collect(),
        })
        .collect();
    Ok(Ready {
        version: VERSION,
        pid: std::process::id(),
        gateway: layout.origin(""),
        api: layout.origin("api"),
        login: layout.origin("login"),
        domain: layout.domain.to_owned(),
        ca: layout.tls.ca.clone(),
        admin: Admin {
            url: format!("{}/admin/v1", layout.origin("admin")),
            token: secrets.operator_token.clone(),
        },
        control_dsn: layout.registry_dsn("waangu_control", &secrets.control_password)?,
        cells,
        demo: None,
    })
}

/// The modules' logins without their common beginning, with their passwords.
fn logins(secrets: &Secrets) -> impl Iterator<Item = (String, &String)> {
    let own = secrets.modules.iter();
    let own = own.map(|(module, password)| (module.to_string(), password));
    let trees = secrets.trees.iter();
    let trees = trees.map(|(module, password)| (format!("{module}_tree"), password));
    own.chain(trees)
}

/// Writes the ready file (atomically) and prints the table.
pub(crate) fn publish(
    state: &State,
    other: Option<&Path>,
    ready: &Ready,
    took: Duration,
    phases: &[(&'static str, Duration)],
) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(ready).of("ready file")?;
    let times: serde_json::Map<String, serde_json::Value> = phases
        .iter()
        .map(|(name, took)| ((*name).to_owned(), took.as_secs_f64().into()))
        .chain([("total".to_owned(), took.as_secs_f64().into())])
        .collect();
    state.write(
        "start-times.json",
        serde_json::Value::from(times).to_string().as_bytes(),
    )?;
    let own = state.path("ready.json");
    write_private(&own, &text).of(own.display())?;
    if let Some(other) = other {
        write_private(other, &text).of(other.display())?;
    }
    // The platform runs, whoever reads about it.
    if let Err(failure) = line(&summary(ready)) {
        tracing::warn!("{failure}");
    }
    talk(&format!(
        "ready in {:.1} s; ready file: {}; stop with Ctrl-C",
        took.as_secs_f64(),
        other.unwrap_or(&own).display()
    ));
    Ok(())
}

fn summary(ready: &Ready) -> String {
    let mut rows = vec![
        vec!["gateway".to_owned(), ready.gateway.clone()],
        vec!["API".to_owned(), format!("{}/api/<module>/…", ready.api)],
        vec!["sign-in".to_owned(), ready.login.clone()],
        vec!["admin API".to_owned(), ready.admin.url.clone()],
        vec!["CA".to_owned(), ready.ca.display().to_string()],
    ];
    for cell in &ready.cells {
        let place = cell
            .superuser_dsn
            .rsplit_once('@')
            .map_or("", |(_, place)| place);
        rows.push(vec![
            format!("cell {}", cell.id),
            format!("{} at {place}", cell.region),
        ]);
    }
    let mut text = table(&["what", "where"], rows);
    if let Some(demo) = &ready.demo {
        let rows = demo
            .tenants
            .iter()
            .flat_map(|tenant| {
                tenant.users.iter().map(|user| {
                    vec![
                        tenant.slug.clone(),
                        tenant.tier.clone(),
                        user.username.clone(),
                        user.roles.join(", "),
                    ]
                })
            })
            .collect();
        text = format!(
            "{text}\n{}\npassword of every demo user: {}",
            table(&["demo tenant", "tier", "user", "roles"], rows),
            demo.password
        );
    }
    text
}
