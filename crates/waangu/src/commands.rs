//! The commands that talk to the admin API, and to nothing else.

use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use waangu_api::types::{
    AuditView, CreateTenant, List, ModuleView, OperationView, TenantList, TenantView,
};
use waangu_api::{Client, Ready};

use crate::cli::{
    AuditCommand, Cli, DocsCommand, Global, ModuleCommand, TenantCommand, TenantCreate,
};
use crate::failure::{Failure, Of as _};
use crate::output::{line, print};

mod advisor;
mod cells;
mod flags;
mod fleet;
mod import;
mod keys;
mod moves;
mod people;
mod placement;
mod promotions;
mod tree;
mod world;

pub(crate) use advisor::advisor;
pub(crate) use cells::cell;
pub(crate) use flags::{flag, plan};
pub(crate) use fleet::fleet;
pub(crate) use keys::key;
pub(crate) use people::{role, user};
pub(crate) use promotions::promote;
pub(crate) use world::apply;

/// Tenants on one page of the API.
const PAGE: usize = 200;

/// Reads the ready file of the platform that is meant.
pub(crate) fn ready(global: &Global) -> Result<Ready, Failure> {
    let path = global.ready_path();
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::failed(format!(
            "{}: {error}; start the platform with `waangu up`, or name its --ready-file or --state",
            path.display()
        ))
    })?;
    serde_json::from_str(&text).of(path.display())
}

/// A name in an address. One that could be read as more than that (`../../other`) would reach another
/// resource than the one that was named.
fn segment(name: &str) -> Result<&str, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.is_empty() && name != "." && name != ".." && name.bytes().all(plain) {
        return Ok(name);
    }
    Err(Failure::usage(format!(
        "`{}` is not a name: letters, digits, hyphens, underscores and dots",
        name.escape_debug()
    )))
}

/// A client of the admin API.
fn admin(global: &Global) -> Result<Client, Failure> {
    let ready = ready(global)?;
    let ca = std::fs::read(&ready.ca).of(ready.ca.display())?;
    Ok(Client::new(
        &ready.admin.url,
        &ca,
        Some(&ready.admin.token),
    )?)
}

pub(crate) async fn tenant(global: &Global, command: TenantCommand) -> Result<(), Failure> {
    match command {
        TenantCommand::Create(wish) => create(global, wish).await,
        TenantCommand::Import(wish) => import::run(global, wish).await,
        TenantCommand::List => {
            let items = all_tenants(&admin(global)?).await?;
            print_tenants(global, &items)
        }
        TenantCommand::Show { slug } => {
            let tenant: TenantView = admin(global)?
                .get(&format!("/tenants/{}", segment(&slug)?))
                .await?;
            print_tenant(global, &tenant)
        }
        TenantCommand::Tree => {
            let items = all_tenants(&admin(global)?).await?;
            tree::print(global.output, &items)
        }
        TenantCommand::Explain { slug } => placement::explain(global, &slug).await,
        TenantCommand::Set { slug, key, value } => {
            placement::set(global, &slug, &key, value.as_deref()).await
        }
        TenantCommand::Suspend { slug } => {
            change(
                global,
                Method::POST,
                &format!("/tenants/{}/suspend", segment(&slug)?),
            )
            .await
        }
        TenantCommand::Resume { slug } => {
            change(
                global,
                Method::POST,
                &format!("/tenants/{}/resume", segment(&slug)?),
            )
            .await
        }
        TenantCommand::Move(wish) => moves::start(global, wish).await,
        TenantCommand::Moves { slug } => moves::list(global, slug.as_deref()).await,
        TenantCommand::CancelMove { slug } => moves::cancel(global, &slug).await,
        TenantCommand::Delete { slug, yes } => {
            if !yes {
                return Err(Failure::usage(format!(
                    "this removes all data of `{slug}`; say --yes if that is meant"
                )));
            }
            change(
                global,
                Method::DELETE,
                &format!("/tenants/{}", segment(&slug)?),
            )
            .await
        }
    }
}

async fn create(global: &Global, wish: TenantCreate) -> Result<(), Failure> {
    let client = admin(global)?;
    let slug = wish.slug.clone();
    let body = CreateTenant {
        name: wish.name.unwrap_or_else(|| wish.slug.clone()),
        slug: wish.slug,
        country: wish.country,
        parent: wish.parent,
        profile: wish.profile,
        tier: wish.tier,
        sla: wish.sla,
        modules: wish.modules,
        plan: wish.plan,
        ..CreateTenant::default()
    };
    let spinner = Spinner::new();
    let key = wish.idempotency_key.as_deref();
    let accepted = client
        .change(Method::POST, "/tenants", Some(&body), key, &|operation| {
            spinner.show(operation);
        })
        .await?;
    spinner.end();
    succeeded(&accepted.operation)?;
    let tenant: TenantView = client.get(&format!("/tenants/{slug}")).await?;
    print_tenant(global, &tenant)
}

/// A change without a body.
async fn change(global: &Global, method: Method, path: &str) -> Result<(), Failure> {
    let spinner = Spinner::new();
    let accepted = admin(global)?
        .change::<()>(method, path, None, None, &|operation| {
            spinner.show(operation);
        })
        .await?;
    spinner.end();
    succeeded(&accepted.operation)?;
    let operation = accepted.operation;
    let row = vec![
        operation.tenant.clone(),
        operation.kind.clone(),
        operation.status.clone(),
    ];
    print(
        global.output,
        &operation,
        &["tenant", "operation", "status"],
        vec![row],
    )
}

fn succeeded(operation: &OperationView) -> Result<(), Failure> {
    if operation.status == "succeeded" {
        return Ok(());
    }
    let why = operation.error.as_deref().unwrap_or("no reason was given");
    Err(Failure::failed(format!(
        "operation {} {}: {why}",
        operation.id, operation.status
    )))
}

pub(crate) async fn module(global: &Global, command: ModuleCommand) -> Result<(), Failure> {
    match command {
        ModuleCommand::List => {
            let list: List<ModuleView> = admin(global)?.get("/modules").await?;
            let rows = list
                .items
                .iter()
                .map(|module| {
                    vec![
                        module.id.clone(),
                        module.version.clone(),
                        module.roles.join(", "),
                    ]
                })
                .collect();
            print(
                global.output,
                &list.items,
                &["module", "version", "roles"],
                rows,
            )
        }
        ModuleCommand::Enable { slug, module } => {
            change(
                global,
                Method::PUT,
                &format!("/tenants/{}/modules/{}", segment(&slug)?, segment(&module)?),
            )
            .await
        }
        ModuleCommand::Upgrade(wish) => fleet::upgrade(global, wish).await,
        ModuleCommand::Disable { slug, module } => {
            change(
                global,
                Method::DELETE,
                &format!("/tenants/{}/modules/{}", segment(&slug)?, segment(&module)?),
            )
            .await
        }
    }
}

pub(crate) async fn audit(global: &Global, command: AuditCommand) -> Result<(), Failure> {
    let AuditCommand::Tail { tenant, limit } = command;
    let only = match &tenant {
        Some(slug) => format!("&tenant={}", segment(slug)?),
        None => String::new(),
    };
    let list: List<AuditView> = admin(global)?
        .get(&format!("/audit?limit={limit}{only}"))
        .await?;
    let rows = list
        .items
        .iter()
        .map(|event| {
            vec![
                event.id.to_string(),
                event.at.to_string(),
                event.actor.clone(),
                event.action.clone(),
                event.tenant.clone().unwrap_or_default(),
                event.detail.to_string(),
            ]
        })
        .collect();
    let header = ["id", "at", "actor", "action", "tenant", "detail"];
    print(global.output, &list.items, &header, rows)
}

pub(crate) fn openapi() -> Result<(), Failure> {
    line(
        &waangu_control::openapi()
            .to_pretty_json()
            .of("OpenAPI document")?,
    )
}

pub(crate) fn docs(command: DocsCommand) -> Result<(), Failure> {
    match command {
        DocsCommand::Errors { out } => {
            std::fs::create_dir_all(&out).of(out.display())?;
            for def in waangu_kernel::fault::ALL {
                let file = out.join(format!("{}.md", def.code));
                std::fs::write(&file, def.page()).of(file.display())?;
            }
            Ok(())
        }
        DocsCommand::Cli => line(&crate::cli::reference::<Cli>()),
        DocsCommand::Fleet => line(&fleet_schema()?),
    }
}

/// The JSON Schema of the world files: OpenAPI 3.1 has the same schemas, in another place.
fn fleet_schema() -> Result<String, Failure> {
    let document = waangu_control::openapi().to_json().of("OpenAPI document")?;
    let moved = document.replace("#/components/schemas/", "#/$defs/");
    let document: serde_json::Value = serde_json::from_str(&moved).of("OpenAPI document")?;
    let names = [
        "World",
        "EnvironmentSpec",
        "RegionSpec",
        "CountrySpec",
        "ProfileSpec",
        "ReportSpec",
        "CellSpec",
    ];
    let all = document.pointer("/components/schemas");
    let definition = |name: &str| Some((name.to_owned(), all?.get(name)?.clone()));
    let definitions: serde_json::Map<_, _> = names.into_iter().filter_map(definition).collect();
    let schema = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "World files of Waangu 360",
        "$ref": "#/$defs/World",
        "$defs": definitions,
    });
    serde_json::to_string_pretty(&schema).of("schema")
}

/// All live tenants, page by page.
pub(crate) async fn all_tenants(client: &Client) -> Result<Vec<TenantView>, Failure> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: TenantList = client
            .get(&format!("/tenants?limit={PAGE}{cursor}"))
            .await?;
        items.extend(page.items);
        match page.next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(items),
        }
    }
}

fn print_tenants(global: &Global, tenants: &[TenantView]) -> Result<(), Failure> {
    let rows = tenants
        .iter()
        .map(|tenant| {
            vec![
                tenant.slug.clone(),
                tenant.name.clone(),
                tenant.country.clone(),
                tenant.parent.clone().unwrap_or_default(),
                tenant.placement.tier.clone(),
                tenant.placement.cell.clone(),
                tenant.state.clone(),
            ]
        })
        .collect();
    let header = [
        "tenant", "name", "country", "parent", "tier", "cell", "state",
    ];
    print(global.output, &tenants, &header, rows)
}

fn print_tenant(global: &Global, tenant: &TenantView) -> Result<(), Failure> {
    let modules: Vec<String> = tenant
        .modules
        .iter()
        .map(|module| {
            let state = if module.enabled { "on" } else { "off" };
            format!("{} {} ({state})", module.module, module.version)
        })
        .collect();
    let entitlements: Vec<String> = tenant
        .entitlements
        .iter()
        .map(|one| {
            let value = flags::shown(&one.kind, &one.value);
            format!("{} = {value} ({})", one.key, one.origin)
        })
        .collect();
    let place = &tenant.placement;
    let rows = [
        ("id", tenant.id.clone()),
        ("tenant", tenant.slug.clone()),
        ("name", tenant.name.clone()),
        ("address", tenant.url.clone()),
        ("country", tenant.country.clone()),
        ("parent", tenant.parent.clone().unwrap_or_default()),
        ("profile", tenant.profile.clone().unwrap_or_default()),
        ("plan", tenant.plan.clone().unwrap_or_default()),
        ("state", tenant.state.clone()),
        (
            "placement",
            format!(
                "{} in {} ({}), {}",
                place.tier, place.cell, place.region, place.database
            ),
        ),
        ("because", place.reasons.join("\n")),
        ("modules", modules.join("\n")),
        ("flags and limits", entitlements.join("\n")),
        ("settings", placement::settings(&tenant.settings)),
    ];
    let rows = rows
        .map(|(name, value)| vec![name.to_owned(), value])
        .to_vec();
    print(global.output, tenant, &["", "value"], rows)
}

/// A spinner on stderr while an operation runs; silent where stderr is not a terminal.
struct Spinner(ProgressBar);

impl Spinner {
    fn new() -> Self {
        let bar = ProgressBar::new(100);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:30} {percent}% {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn show(&self, operation: &OperationView) {
        self.0
            .set_position(u64::try_from(operation.percent).unwrap_or(0));
        self.0.set_message(operation.step.clone());
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `waangu user delete acme ../../acme` once deleted the tenant, without asking.
    #[test]
    fn a_name_stays_one_segment_of_an_address() {
        for name in ["acme", "awa.diop", "ten_1", "A-b"] {
            assert_eq!(segment(name).unwrap(), name);
        }
        for other in [
            "",
            ".",
            "..",
            "../../acme",
            "a/b",
            "a?b",
            "a#b",
            "a%2fb",
            "a b",
            "a\n",
            "é",
        ] {
            assert!(segment(other).is_err(), "{other:?}");
        }
    }
}
