//! A tenant at work as its clients see it: clerks behind the gateway who note what was acknowledged, and
//! the comparison of their notes with the tenant's rows ([`books`]).
//!
//! Invariants: a clerk asks again, under the same key, until an act is answered, so that in the end each
//! act is done or refused and never unknown; every tenant has one depot and one store, between which
//! stock is moved to and fro, so that the sum on hand never changes.
//!
//! Left out: reading. A read that is late or refused loses nothing.

pub(crate) mod books;
mod clerk;

pub(crate) use clerk::{Clerk, Mix, Seen};

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use waangu_api::types::{Accepted, CreateUser, TenantView, UserView};
use waangu_api::{Client, ClientError};
use waangu_kernel::TenantId;

use crate::failure::{Failure, Of as _};
use crate::platform::Platform;

/// Longest time that one act is asked for again and again.
const PATIENCE: Duration = Duration::from_mins(2);

/// Pause before it is asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// A tenant with its places, ready for clerks.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) slug: String,
    pub(crate) tenant: TenantId,
    pub(crate) depot: String,
    pub(crate) store: String,
    admin: Client,
    login: Client,
    username: String,
    password: String,
    base: String,
    /// Signs in again when its token has run out.
    client: RwLock<Client>,
}

/// How an act was answered in the end.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) body: Result<Value, ClientError>,
    /// Answers before this one that were none: 5xx, or a connection that broke.
    pub(crate) failures: u64,
}

impl Shop {
    /// Onboards the tenant, with a manager who opens its depot and its store.
    pub(crate) async fn open(
        platform: &Platform,
        slug: &str,
        country: &str,
        tier: &str,
    ) -> Result<Self, Failure> {
        let (admin, ready) = (platform.admin()?, &platform.ready);
        let wish = json!({ "slug": slug, "name": slug, "country": country, "tier": tier });
        let accepted: Accepted = admin
            .change(Method::POST, "/tenants", Some(&wish), None, &|_| {})
            .await?;
        if accepted.operation.status != "succeeded" {
            return Err(Failure::new(format!(
                "{slug}: {:?}",
                accepted.operation.error
            )));
        }
        let tenant: TenantView = admin.get(&format!("/tenants/{slug}")).await?;
        let user = CreateUser {
            username: "awa".to_owned(),
            roles: vec!["inventory.manager".to_owned()],
            ..CreateUser::default()
        };
        let path = format!("/tenants/{slug}/users");
        let user: UserView = admin.send_json(Method::POST, &path, &user, None).await?;
        let password = user.password.ok_or_else(|| Failure::new("no password"))?;
        let username = format!("awa@{slug}");
        let login = admin.at(&ready.login, None);
        let token = login.sign_in(&username, &password).await?;
        let port = ready
            .gateway
            .rsplit_once(':')
            .map_or("443", |(_, port)| port);
        let base = format!("https://{slug}.{}:{port}/api/inventory", ready.domain);
        let mut shop = Self {
            slug: slug.to_owned(),
            tenant: tenant.id.parse().of(slug)?,
            depot: String::new(),
            store: String::new(),
            client: RwLock::new(admin.at(&base, Some(&token))),
            admin,
            login,
            username,
            password,
            base,
        };
        shop.depot = shop.open_place("DEPOT", "warehouse").await?;
        shop.store = shop.open_place("STORE", "store").await?;
        Ok(shop)
    }

    async fn open_place(&self, code: &str, kind: &str) -> Result<String, Failure> {
        let place = json!({ "code": code, "name": code, "kind": kind });
        let done = self
            .insist(&Method::POST, "/places", &place, Some(code))
            .await?;
        id(&done.body.of(code)?)
    }

    /// Asks until there is an answer.
    pub(crate) async fn insist(
        &self,
        method: &Method,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Result<Answered, Failure> {
        let begun = Instant::now();
        let mut failures = 0;
        loop {
            let client = self.client();
            let answer = match *method {
                Method::DELETE => client.delete(path).await.map(|()| Value::Null),
                _ => client.send_json(method.clone(), path, body, key).await,
            };
            let why = match answer {
                Ok(body) => {
                    return Ok(Answered {
                        body: Ok(body),
                        failures,
                    });
                }
                Err(ClientError::Refused(problem)) if problem.status == 401 => {
                    self.sign_in().await;
                    ClientError::Refused(problem)
                }
                // The gateway has not heard of the tenant yet, or the tenant asks for more than its share.
                Err(ClientError::Refused(problem)) if is_to_wait(&problem.code) => {
                    ClientError::Refused(problem)
                }
                Err(ClientError::Refused(problem)) if problem.status < 500 => {
                    return Ok(Answered {
                        body: Err(ClientError::Refused(problem)),
                        failures,
                    });
                }
                Err(error) => {
                    failures += 1;
                    error
                }
            };
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new(format!(
                    "{}: {method} {path}: {why}",
                    self.slug
                )));
            }
            sleep(PAUSE).await;
        }
    }

    /// The admin API.
    pub(crate) fn admin(&self) -> &Client {
        &self.admin
    }

    fn client(&self) -> Client {
        let client = self.client.read();
        client.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One of several clerks that are refused at once does it; if it fails, the next refusal tries again.
    async fn sign_in(&self) {
        if let Ok(token) = self.login.sign_in(&self.username, &self.password).await {
            let fresh = self.admin.at(&self.base, Some(&token));
            *self.client.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }
}

fn is_to_wait(code: &str) -> bool {
    matches!(
        code,
        "tenant-unknown" | "module-not-active" | "rate-limited"
    )
}

/// The id of what was created.
fn id(body: &Value) -> Result<String, Failure> {
    let id = body.get("id").and_then(Value::as_str);
    id.map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("an answer without an id: {body}")))
}
