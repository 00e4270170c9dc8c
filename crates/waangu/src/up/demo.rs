//! The demo fleet: applied as an operator (admin API) and the tenants' own people (gateway) would.
//!
//! Invariant: applied again, it adds nothing twice: what exists is left alone, and every write carries
//! an idempotency key that is the same each time.

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use waangu_api::ready::{Demo, DemoTenant, DemoUser};
use waangu_api::types::{CreateTenant, CreateUser, TenantView};
use waangu_api::{Client, ClientError, Ready};

use super::progress::Progress;
use crate::failure::{Failure, Of as _};

mod story;

use story::Story;

const FLEET: &str = include_str!("../../../../demo/fleet.toml");

/// When the story begins; fixed, so that the same moves come out each time.
const BEGINNING: OffsetDateTime = datetime!(2026-01-05 08:00 UTC);

/// Moves in one request.
const BATCH: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fleet {
    tenants: Vec<TenantSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantSpec {
    slug: String,
    name: String,
    country: String,
    profile: String,
    parent: Option<String>,
    users: Vec<UserSpec>,
    inventory: InventorySpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserSpec {
    username: String,
    name: String,
    roles: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InventorySpec {
    seed: u64,
    moves: usize,
    /// `kind:code:name`.
    places: Vec<String>,
    /// `sku:name:unit:price_minor:currency`.
    products: Vec<String>,
}

/// Who does the seeding, and where.
struct Seeder<'a> {
    ready: &'a Ready,
    admin: Client,
    password: &'a str,
}

/// A created row; all that matters here is its id.
#[derive(Debug, Deserialize)]
struct Created {
    id: String,
}

#[derive(Debug, Serialize)]
struct MoveBody<'a> {
    product: &'a str,
    from: Option<&'a str>,
    to: Option<&'a str>,
    quantity: i64,
    reason: &'static str,
    reference: String,
    #[serde(with = "time::serde::rfc3339")]
    moved_at: OffsetDateTime,
}

/// Applies the fleet and tells what is in it.
pub(crate) async fn seed(
    ready: &Ready,
    password: &str,
    progress: &Progress,
) -> Result<Demo, Failure> {
    let fleet: Fleet = toml::from_str(FLEET).of("demo/fleet.toml")?;
    let ca = std::fs::read(&ready.ca).of(ready.ca.display())?;
    let admin = Client::new(&ready.admin.url, &ca, Some(&ready.admin.token))?;
    let seeder = Seeder {
        ready,
        admin,
        password,
    };
    let mut tenants = Vec::new();
    // Parents stand before their children in the file, so tenants are born in order; people and
    // stock of all of them come side by side.
    for spec in &fleet.tenants {
        progress.note(&format!("onboard {}", spec.slug));
        let view = seeder.tenant(spec).await?;
        tenants.push(DemoTenant {
            slug: spec.slug.clone(),
            tier: view.placement.tier,
            users: spec
                .users
                .iter()
                .map(|user| DemoUser {
                    username: format!("{}@{}", user.username, spec.slug),
                    roles: user.roles.clone(),
                })
                .collect(),
        });
    }
    progress.note("people and stock");
    let work = fleet.tenants.iter().map(|spec| seeder.furnish(spec));
    futures_util::future::try_join_all(work).await?;
    Ok(Demo {
        password: password.to_owned(),
        tenants,
    })
}

impl Seeder<'_> {
    async fn tenant(&self, spec: &TenantSpec) -> Result<TenantView, Failure> {
        let path = format!("/tenants/{}", spec.slug);
        match self.admin.get(&path).await {
            Err(ClientError::Refused(problem)) if problem.status == 404 => {}
            other => return Ok(other?),
        }
        let body = CreateTenant {
            slug: spec.slug.clone(),
            name: spec.name.clone(),
            country: spec.country.clone(),
            parent: spec.parent.clone(),
            profile: Some(spec.profile.clone()),
            ..CreateTenant::default()
        };
        let accepted = self
            .admin
            .change(
                Method::POST,
                "/tenants",
                Some(&body),
                None,
                &|_operation| {},
            )
            .await?;
        match accepted.operation.error {
            None => Ok(self.admin.get(&path).await?),
            Some(error) => Err(Failure::failed(format!(
                "demo tenant {}: {error}",
                spec.slug
            ))),
        }
    }

    /// Gives a tenant its people and its stock.
    async fn furnish(&self, spec: &TenantSpec) -> Result<(), Failure> {
        for user in &spec.users {
            self.user(spec, user).await?;
        }
        let Some(worker) = spec.users.iter().find(|user| may_write(user)) else {
            return Ok(());
        };
        let login = self.admin.at(&self.ready.login, None);
        let name = format!("{}@{}", worker.username, spec.slug);
        let token = login.sign_in(&name, self.password).await?;
        let port = self
            .ready
            .gateway
            .rsplit_once(':')
            .map_or("443", |(_, port)| port);
        let base = format!(
            "https://{}.{}:{port}/api/inventory",
            spec.slug, self.ready.domain
        );
        self.stock(&spec.inventory, &self.admin.at(&base, Some(&token)))
            .await
    }

    async fn user(&self, spec: &TenantSpec, user: &UserSpec) -> Result<(), Failure> {
        let path = format!("/tenants/{}/users", spec.slug);
        let body = CreateUser {
            username: user.username.clone(),
            display_name: Some(user.name.clone()),
            password: Some(self.password.to_owned()),
            roles: user.roles.clone(),
        };
        match self
            .admin
            .send_json::<_, Value>(Method::POST, &path, &body, None)
            .await
        {
            Err(ClientError::Refused(problem)) if problem.code == "username-taken" => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    async fn stock(&self, spec: &InventorySpec, inventory: &Client) -> Result<(), Failure> {
        let mut places = Vec::new();
        for text in &spec.places {
            let [kind, code, name] = fields(text)?;
            let body = json!({ "kind": kind, "code": code, "name": name });
            places.push((
                kind == "warehouse",
                create(inventory, "/places", code, &body).await?,
            ));
        }
        let mut products = Vec::new();
        for text in &spec.products {
            let [sku, name, unit, price, currency] = fields(text)?;
            let price: i64 = price.parse().of(text)?;
            let body = json!({
                "sku": sku, "name": name, "unit": unit, "price_minor": price, "currency": currency,
            });
            products.push(create(inventory, "/products", sku, &body).await?);
        }
        let warehouses: Vec<bool> = places.iter().map(|(warehouse, _)| *warehouse).collect();
        let story = Story::new(spec.seed, &warehouses, products.len());
        let moves: Vec<MoveBody<'_>> = (0_i32..)
            .zip(story.take(spec.moves))
            .filter_map(|(number, told)| {
                let place =
                    |at: Option<usize>| at.and_then(|at| places.get(at)).map(|(_, id)| id.as_str());
                Some(MoveBody {
                    product: products.get(told.product)?,
                    from: place(told.from),
                    to: place(told.to),
                    quantity: told.quantity,
                    reason: told.reason,
                    reference: format!("DEMO-{number:05}"),
                    moved_at: BEGINNING + Duration::minutes(37) * number,
                })
            })
            .collect();
        for (number, batch) in moves.chunks(BATCH).enumerate() {
            let key = format!("demo-moves-{number}");
            let path = "/moves/batch";
            inventory
                .send_json::<_, Value>(Method::POST, path, &batch, Some(&key))
                .await?;
        }
        Ok(())
    }
}

async fn create(
    inventory: &Client,
    path: &str,
    key: &str,
    body: &Value,
) -> Result<String, Failure> {
    let key = format!("demo-{key}");
    let created: Created = inventory
        .send_json(Method::POST, path, body, Some(&key))
        .await?;
    Ok(created.id)
}

fn may_write(user: &UserSpec) -> bool {
    user.roles
        .iter()
        .any(|role| role == "tenant-admin" || role == "inventory.manager")
}

fn fields<const N: usize>(text: &str) -> Result<[&str; N], Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    parts.try_into().map_err(|_other_length| {
        Failure::failed(format!("demo/fleet.toml: `{text}` needs {N} fields"))
    })
}
