//! A tenant's users and their roles.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use waangu_api::Problem;
use waangu_api::types::{CreateUser, List, PutRoles, UserView};
use waangu_identity::random_secret;
use waangu_kernel::permission::TENANT_ADMIN;
use waangu_kernel::{Fault, RoleName, Username, fault};
use waangu_registry::{Tx, User};

use super::call::{Begun, Call, Change, reply, send};
use super::{create, entitlements, tenants};
use crate::reply::{Path, RawBody, Refusal};
use crate::server::App;

/// Shortest password, in characters (NIST SP 800-63B-4 §3.1.1.2 for multi-factor use; a longer one is
/// the tenant's policy).
const PASSWORD_MINIMUM: usize = 8;

/// Longest password, in bytes: hashing must not become a lever.
const PASSWORD_MAXIMUM: usize = 256;

/// All users of a tenant.
#[utoipa::path(get, path = "/tenants/{slug}/users", operation_id = "users.list", tag = "users",
    params(("slug" = String, Path)),
    responses((status = 200, body = List<UserView>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(slug): Path<String>,
) -> Result<Json<List<UserView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&tenants::parse(&slug)?).await?;
    let users = tx.list_users(tenant.id).await?;
    Ok(Json(List {
        items: users.into_iter().map(|user| view(user, None)).collect(),
    }))
}

/// Creates a user. A password that the platform makes is answered this once and never again.
#[utoipa::path(post, path = "/tenants/{slug}/users", operation_id = "users.create", tag = "users",
    params(("slug" = String, Path)), request_body = CreateUser,
    responses((status = 201, body = UserView, headers(("Location" = String))),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    call: Call,
    Path(slug): Path<String>,
    body: RawBody,
) -> Result<Response, Refusal> {
    let wish: CreateUser = body.parse()?;
    let slug = tenants::parse(&slug)?;
    let username: Username = wish.username.parse()?;
    let display_name =
        create::check_name(wish.display_name.unwrap_or_else(|| username.to_string()))
            .map_err(|fault| fault.field("display_name"))?;
    let (secret, made) = if let Some(given) = wish.password {
        (check_password(given)?, None)
    } else {
        let made = random_secret::<18>().map_err(no_entropy)?;
        (made.clone(), Some(made))
    };
    let hash = app.hash_password(secret).await?;

    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let tenant = change.tx.lock_tenant(&slug).await?;
    let roles = check_roles(&change.tx, &wish.roles).await?;
    entitlements::check_room_for_user(&change.tx, tenant.id).await?;
    let id = change
        .tx
        .create_user(tenant.id, &username, &display_name, &hash)
        .await?;
    change.tx.put_roles(tenant.id, id, &roles).await?;
    let user = User {
        id,
        username,
        display_name,
        disabled: false,
        roles,
    };
    let location = format!("/admin/v1/tenants/{slug}/users/{}", user.username);
    let detail = json!({ "user": user.id, "username": user.username, "roles": user.roles });
    // What is kept for a repeated request has no password in it.
    let answer = reply(StatusCode::CREATED, Some(location), &view(user, None))?;
    let mut stored = change
        .commit("user.create", (tenant.id, &slug), &detail, answer)
        .await?;
    if let (Some(made), Some(fields)) = (made, stored.body.as_object_mut()) {
        fields.insert("password".to_owned(), made.into());
    }
    Ok(send(stored))
}

/// One user.
#[utoipa::path(get, path = "/tenants/{slug}/users/{username}", operation_id = "users.get",
    tag = "users", params(("slug" = String, Path), ("username" = String, Path)),
    responses((status = 200, body = UserView), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _call: Call,
    Path((slug, username)): Path<(String, String)>,
) -> Result<Json<UserView>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&tenants::parse(&slug)?).await?;
    Ok(Json(view(
        tx.get_user(tenant.id, &username.parse()?).await?,
        None,
    )))
}

/// Removes a user.
#[utoipa::path(delete, path = "/tenants/{slug}/users/{username}", operation_id = "users.delete",
    tag = "users", params(("slug" = String, Path), ("username" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    call: Call,
    Path((slug, username)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let slug = tenants::parse(&slug)?;
    let username: Username = username.parse()?;
    let mut session = app.registry.session().await?;
    if let Begun::Fresh(change) = Change::begin(&mut session, &call, &[]).await? {
        let tenant = change.tx.lock_tenant(&slug).await?;
        let user = change.tx.get_user(tenant.id, &username).await?;
        change.tx.delete_user(user.id).await?;
        let detail = json!({ "user": user.id, "username": username });
        let empty = reply(StatusCode::NO_CONTENT, None, &json!({}))?;
        change
            .commit("user.delete", (tenant.id, &slug), &detail, empty)
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Replaces a user's roles; effective at the gateway within moments.
#[utoipa::path(put, path = "/tenants/{slug}/users/{username}/roles", operation_id = "roles.put",
    tag = "users", params(("slug" = String, Path), ("username" = String, Path)),
    request_body = PutRoles,
    responses((status = 200, body = UserView), (status = "default", body = Problem)))]
pub(super) async fn put_roles(
    State(app): State<Arc<App>>,
    call: Call,
    Path((slug, username)): Path<(String, String)>,
    body: RawBody,
) -> Result<Json<UserView>, Refusal> {
    let wish: PutRoles = body.parse()?;
    let slug = tenants::parse(&slug)?;
    let username: Username = username.parse()?;
    let mut session = app.registry.session().await?;
    if let Begun::Fresh(change) = Change::begin(&mut session, &call, &body.bytes).await? {
        let tenant = change.tx.lock_tenant(&slug).await?;
        let roles = check_roles(&change.tx, &wish.roles).await?;
        let user = change.tx.get_user(tenant.id, &username).await?;
        change.tx.put_roles(tenant.id, user.id, &roles).await?;
        let detail = json!({ "user": user.id, "before": user.roles, "after": roles });
        let empty = reply(StatusCode::OK, None, &json!({}))?;
        change
            .commit("user.roles", (tenant.id, &slug), &detail, empty)
            .await?;
    }
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&slug).await?;
    Ok(Json(view(tx.get_user(tenant.id, &username).await?, None)))
}

/// Refuses roles that no installed module declares.
async fn check_roles(tx: &Tx<'_>, names: &[String]) -> Result<Vec<RoleName>, Fault> {
    let installed = tx.list_modules().await?;
    let mut roles = Vec::with_capacity(names.len());
    for name in names {
        let known = name == TENANT_ADMIN
            || installed
                .iter()
                .any(|stored| stored.manifest.role_permissions(name).is_some());
        if !known {
            return Err(fault::ROLE_UNKNOWN
                .fault(format!(
                    "no module declares the role `{}`",
                    fault::excerpt(name)
                ))
                .field("roles"));
        }
        roles.push(name.parse()?);
    }
    Ok(roles)
}

fn check_password(given: String) -> Result<String, Fault> {
    if given.chars().count() >= PASSWORD_MINIMUM && given.len() <= PASSWORD_MAXIMUM {
        return Ok(given);
    }
    Err(fault::INVALID_FIELD
        .fault(format!(
            "a password has {PASSWORD_MINIMUM} characters to {PASSWORD_MAXIMUM} bytes"
        ))
        .field("password"))
}

fn no_entropy(error: waangu_identity::keys::KeyError) -> Fault {
    fault::INTERNAL
        .fault("no password could be made")
        .cause(error)
}

fn view(user: User, password: Option<String>) -> UserView {
    UserView {
        id: user.id.to_string(),
        username: user.username.into(),
        display_name: user.display_name,
        disabled: user.disabled,
        roles: user.roles.into_iter().map(Into::into).collect(),
        password,
    }
}

impl App {
    /// Hashes a password off the event loop, a few at a time.
    pub(crate) async fn hash_password(&self, secret: String) -> Result<String, Fault> {
        self.hashing(move |hasher| hasher.hash(&secret))
            .await?
            .map_err(no_entropy)
    }
}
