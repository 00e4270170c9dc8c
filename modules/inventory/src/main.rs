//! The inventory module: products, places, and stock that never goes below zero.
//!
//! Left out: valuation, purchase and sale documents (their ids go into a move's `reference`), and
//! units of measure that convert into each other.

use std::process::ExitCode;

use waangu_sdk::{Module, Router, routing::get, routing::post};

mod consolidated;
mod created;
mod errors;
mod fields;
mod moves;
mod page;
mod permissions;
mod places;
mod products;
mod stock;

static MODULE: Module = Module {
    manifest: include_str!("../module.toml"),
    migrations: &[
        (
            "0001_inventory",
            include_str!("../migrations/0001_inventory.sql"),
        ),
        ("0002_turn", include_str!("../migrations/0002_turn.sql")),
    ],
    errors: &errors::ERRORS,
    router,
};

fn main() -> ExitCode {
    waangu_sdk::run(&MODULE)
}

fn router() -> Router {
    Router::new()
        .route("/products", get(products::list).post(products::create))
        .route(
            "/products/{id}",
            get(products::get)
                .patch(products::update)
                .delete(products::delete),
        )
        .route("/places", get(places::list).post(places::create))
        .route("/places/{id}", get(places::get))
        .route("/stock", get(stock::list))
        .route("/consolidated/stock", get(consolidated::stock))
        .route("/consolidated/levels", get(consolidated::levels))
        .route("/moves", get(moves::list).post(moves::create))
        .route("/moves/batch", post(moves::create_batch))
        .route("/moves/{id}", get(moves::get))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest that the control plane refuses would show only when the module is installed.
    #[test]
    fn the_package_is_whole() {
        let package = MODULE.package().unwrap();
        assert_eq!(package.manifest.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(package.manifest.routes.len(), 15);
        for role in ["viewer", "clerk", "manager", "consolidator"] {
            let role = format!("inventory.{role}");
            assert!(package.manifest.role_permissions(&role).is_some(), "{role}");
        }
        // An error whose code is not the module's own could be mistaken for the platform's.
        assert!(
            MODULE
                .errors
                .iter()
                .all(|def| def.code.starts_with("inventory."))
        );
    }
}
