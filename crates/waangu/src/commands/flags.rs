//! Flags, limits and plans.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;
use waangu_api::Client;
use waangu_api::types::{
    DeclarationView, EntitlementView, List, PatchTenant, PlanView, PutEntitlement, PutPlan,
    TenantView,
};
use waangu_kernel::entitlement::Kind;

use super::{admin, segment};
use crate::cli::{FlagCommand, Global, PlanCommand, PlanPut};
use crate::failure::{Failure, Of as _};
use crate::output::print;

pub(crate) async fn flag(global: &Global, command: FlagCommand) -> Result<(), Failure> {
    let client = admin(global)?;
    match command {
        FlagCommand::Keys => {
            let list: List<DeclarationView> = client.get("/entitlements").await?;
            print_declared(global, &list.items)
        }
        FlagCommand::List { slug } => {
            let path = format!("/tenants/{}/entitlements", segment(&slug)?);
            let list: List<EntitlementView> = client.get(&path).await?;
            print_held(global, &list.items)
        }
        FlagCommand::Get { slug, key } => {
            let held: EntitlementView = client.get(&path(&slug, &key)?).await?;
            print_held(global, &[held])
        }
        FlagCommand::Set { slug, key, value } => {
            let path = path(&slug, &key)?;
            let known: EntitlementView = client.get(&path).await?;
            let value = read(&known.kind, &value)?;
            let body = PutEntitlement { value };
            let held: EntitlementView = client.send_json(Method::PUT, &path, &body, None).await?;
            print_held(global, &[held])
        }
        FlagCommand::Unset { slug, key } => {
            let path = path(&slug, &key)?;
            client.delete(&path).await?;
            let held: EntitlementView = client.get(&path).await?;
            print_held(global, &[held])
        }
    }
}

pub(crate) async fn plan(global: &Global, command: PlanCommand) -> Result<(), Failure> {
    let client = admin(global)?;
    match command {
        PlanCommand::List => {
            let list: List<PlanView> = client.get("/plans").await?;
            print_plans(global, &list.items)
        }
        PlanCommand::Show { id } => {
            let plan: PlanView = client.get(&format!("/plans/{}", segment(&id)?)).await?;
            print_plans(global, &[plan])
        }
        PlanCommand::Put(wish) => put(global, &client, wish).await,
        PlanCommand::Delete { id } => {
            Ok(client.delete(&format!("/plans/{}", segment(&id)?)).await?)
        }
        PlanCommand::Assign { slug, id } => assign(global, &client, &slug, id).await,
        PlanCommand::Unassign { slug } => assign(global, &client, &slug, String::new()).await,
    }
}

async fn put(global: &Global, client: &Client, wish: PlanPut) -> Result<(), Failure> {
    let declared: List<DeclarationView> = client.get("/entitlements").await?;
    let mut entitlements = BTreeMap::new();
    for (key, text) in wish.values {
        let kind = declared.items.iter().find(|one| one.key == key);
        // Of a key that nobody declares the platform says so itself.
        let value = match kind {
            Some(declared) => read(&declared.kind, &text)?,
            None => Value::from(text),
        };
        entitlements.insert(key, value);
    }
    let body = PutPlan {
        title: wish.titles.into_iter().collect(),
        entitlements,
    };
    let path = format!("/plans/{}", segment(&wish.id)?);
    let plan: PlanView = client.send_json(Method::PUT, &path, &body, None).await?;
    print_plans(global, &[plan])
}

async fn assign(global: &Global, client: &Client, slug: &str, id: String) -> Result<(), Failure> {
    let body = PatchTenant {
        plan: Some(id),
        ..PatchTenant::default()
    };
    let path = format!("/tenants/{}", segment(slug)?);
    let tenant: TenantView = client.send_json(Method::PATCH, &path, &body, None).await?;
    print_held(global, &tenant.entitlements)
}

/// The address of one flag of one tenant.
fn path(slug: &str, key: &str) -> Result<String, Failure> {
    Ok(format!(
        "/tenants/{}/entitlements/{}",
        segment(slug)?,
        segment(key)?
    ))
}

/// A value as it was typed, for a key of this kind.
fn read(kind: &str, text: &str) -> Result<Value, Failure> {
    let kind: Kind = serde_json::from_value(kind.into()).of("type of the flag")?;
    kind.read(text)
        .map_err(|fault| Failure::usage(fault.to_string()))
}

/// A value in a table: what `read` takes.
pub(super) fn shown(kind: &str, value: &Value) -> String {
    match value {
        Value::Null if kind == Kind::Limit.as_str() => "unlimited".to_owned(),
        Value::String(text) if kind == Kind::String.as_str() => text.clone(),
        other => other.to_string(),
    }
}

fn print_held(global: &Global, held: &[EntitlementView]) -> Result<(), Failure> {
    let rows = held
        .iter()
        .map(|one| {
            vec![
                one.key.clone(),
                one.kind.clone(),
                shown(&one.kind, &one.value),
                one.origin.clone(),
            ]
        })
        .collect();
    let header = ["key", "type", "value", "origin"];
    print(global.output, &held, &header, rows)
}

fn print_declared(global: &Global, declared: &[DeclarationView]) -> Result<(), Failure> {
    let rows = declared
        .iter()
        .map(|one| {
            vec![
                one.key.clone(),
                one.kind.clone(),
                shown(&one.kind, &one.default),
                one.unit.clone().unwrap_or_default(),
                one.description.clone(),
            ]
        })
        .collect();
    let header = ["key", "type", "default", "unit", "description"];
    print(global.output, &declared, &header, rows)
}

fn print_plans(global: &Global, plans: &[PlanView]) -> Result<(), Failure> {
    let rows = plans
        .iter()
        .map(|plan| {
            let values = plan.entitlements.iter();
            let values = values.map(|(key, value)| format!("{key} = {value}"));
            vec![
                plan.id.clone(),
                plan.title.get("en").cloned().unwrap_or_default(),
                values.collect::<Vec<_>>().join("\n"),
                plan.tenants.to_string(),
            ]
        })
        .collect();
    let header = ["plan", "title", "gives", "tenants"];
    print(global.output, &plans, &header, rows)
}
