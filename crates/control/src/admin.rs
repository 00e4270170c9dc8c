//! The admin API, `/admin/v1`.
//!
//! Invariants: every handler takes a [`call::Call`], which exists only for an authenticated operator;
//! every change goes through [`call::Change`], which makes it audited and repeatable.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waangu_api::PROBLEM_JSON;
use waangu_kernel::fault;

use crate::reply::Refusal;
use crate::server::App;

mod activations;
mod advisor;
mod call;
mod catalogue;
mod cells;
mod create;
mod entitlements;
mod fleet;
mod keys;
mod operations;
mod plans;
mod promotions;
mod relocations;
mod repairs;
mod rollouts;
mod settings;
mod surroundings;
mod tenants;
mod users;
mod view;
mod watch;
mod world;

pub(crate) use create::check_name;
pub(crate) use entitlements::catalogue as entitlement_catalogue;
pub(crate) use promotions::Facts;
pub(crate) use relocations::Wish;

/// Largest request body, in bytes.
const BODY_LIMIT: usize = 256 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Waangu 360 admin API",
        description = "Onboard tenants, switch modules, manage people. Errors are RFC 9457 problem \
                       documents whose `code` is explained in docs/errors. Every POST takes an \
                       `Idempotency-Key`; changes that take time answer 202 with the operation's \
                       `Location`, and wait for it with `Prefer: wait=SECONDS` (RFC 7240).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    security(("operator" = [])),
)]
struct Document;

/// The OpenAPI 3.1 document of the admin API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, mut document) = routes().split_for_parts();
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document
        .components
        .get_or_insert_with(Default::default)
        .add_security_scheme("operator", scheme);
    name_problems(&mut document);
    document
}

/// Gives refusals their media type: utoipa takes every body for `application/json`.
fn name_problems(document: &mut utoipa::openapi::OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            if let Some(RefOr::T(refusal)) = operation.responses.responses.get_mut("default")
                && let Some(content) = refusal.content.shift_remove("application/json")
            {
                refusal.content.insert(PROBLEM_JSON.to_owned(), content);
            }
        }
    }
}

/// The routes with their state, and the document beside them.
pub(crate) fn router(app: Arc<App>) -> axum::Router {
    let (router, _) = routes().split_for_parts();
    let document = Arc::new(openapi());
    router
        .route(
            "/admin/v1/openapi.json",
            get(move || async move { axum::Json(document.as_ref().clone()) }),
        )
        .method_not_allowed_fallback(|| async {
            Refusal(fault::METHOD_NOT_ALLOWED.fault("the address does not take this method"))
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(app)
}

fn routes() -> OpenApiRouter<Arc<App>> {
    let v1 = tenants()
        .merge(catalogue())
        .merge(fleet_routes())
        .merge(moves());
    OpenApiRouter::with_openapi(Document::openapi()).nest("/admin/v1", v1)
}

fn tenants() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(tenants::list, create::create))
        .routes(routes!(tenants::show, tenants::patch, tenants::delete))
        .routes(routes!(tenants::suspend))
        .routes(routes!(tenants::resume))
        .routes(routes!(tenants::placement))
        .routes(routes!(activations::put, activations::delete))
        .routes(routes!(
            entitlements::get,
            entitlements::put,
            entitlements::delete
        ))
        .routes(routes!(entitlements::list))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::show, users::delete))
        .routes(routes!(users::put_roles))
}

fn catalogue() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(operations::show))
        .routes(routes!(operations::events))
        .routes(routes!(catalogue::modules))
        .routes(routes!(catalogue::regions))
        .routes(routes!(catalogue::countries))
        .routes(routes!(catalogue::environments))
        .routes(routes!(catalogue::audit))
        .routes(routes!(entitlements::declared))
        .routes(routes!(plans::list))
        .routes(routes!(plans::show, plans::put, plans::delete))
        .routes(routes!(keys::list))
        .routes(routes!(keys::rotate))
        .merge(places())
}

fn places() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(world::get, world::put))
        .routes(routes!(world::profiles))
        .routes(routes!(cells::list, cells::create))
        .routes(routes!(cells::show))
        .routes(routes!(cells::drain))
        .routes(routes!(cells::activate))
        .routes(routes!(promotions::list, promotions::create))
        .routes(routes!(promotions::import))
        .routes(routes!(settings::list))
        .routes(routes!(settings::put, settings::delete))
}

fn fleet_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(fleet::show))
        .routes(routes!(fleet::events))
        .routes(routes!(repairs::create))
        .routes(routes!(repairs::show))
        .routes(routes!(rollouts::list, rollouts::create))
        .routes(routes!(rollouts::show))
        .routes(routes!(rollouts::events))
        .routes(routes!(rollouts::pause))
        .routes(routes!(rollouts::resume))
        .routes(routes!(rollouts::cancel))
        .routes(routes!(rollouts::retry))
        .routes(routes!(advisor::show))
        .routes(routes!(advisor::look))
        .routes(routes!(advisor::tenant))
}

fn moves() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(relocations::all))
        .routes(routes!(relocations::list, relocations::create))
        .routes(routes!(relocations::show))
        .routes(routes!(relocations::events))
        .routes(routes!(relocations::cancel))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client made from the document must take our refusals for what they are.
    #[test]
    fn every_operation_documents_its_problems() {
        let document = serde_json::to_value(openapi()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let refusal = &operation["responses"]["default"]["content"];
                assert!(refusal[PROBLEM_JSON].is_object(), "{method} {path}");
                assert!(refusal["application/json"].is_null(), "{method} {path}");
            }
        }
    }
}
