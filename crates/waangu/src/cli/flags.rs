//! Commands about flags, limits and plans.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum FlagCommand {
    /// Everything that may have a value, with its type and default.
    Keys,
    /// All flags and limits of a tenant.
    List {
        /// The tenant.
        slug: String,
    },
    /// One flag or limit of a tenant.
    Get {
        /// The tenant.
        slug: String,
        /// Its key: module.key, or one of the platform's own such as users.
        key: String,
    },
    /// Set a flag or limit for a tenant alone; stronger than its profile and plan.
    Set {
        /// The tenant.
        slug: String,
        /// Its key.
        key: String,
        /// true, false, a number, a text or JSON, as its type says; a limit may be `unlimited`.
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Take a tenant's own value away; its profile's, its plan's or the default counts again.
    Unset {
        /// The tenant.
        slug: String,
        /// Its key.
        key: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// All plans.
    List,
    /// One plan.
    Show {
        /// Its id.
        id: String,
    },
    /// Create a plan, or replace all that it gives. Its tenants have the new values within moments.
    Put(PlanPut),
    /// Remove a plan that no tenant has.
    Delete {
        /// Its id.
        id: String,
    },
    /// Give a tenant a plan.
    Assign {
        /// The tenant.
        slug: String,
        /// The plan.
        id: String,
    },
    /// Take a tenant's plan away.
    Unassign {
        /// The tenant.
        slug: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PlanPut {
    /// Its id: a-z, 0-9, hyphens.
    pub(crate) id: String,
    /// What it gives, such as users=20.
    #[arg(value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) values: Vec<(String, String)>,
    /// Its title in one language, such as en=Starter.
    #[arg(long = "title", value_name = "LANG=TEXT", value_parser = pair)]
    pub(crate) titles: Vec<(String, String)>,
}

/// Two words with `=` between them.
fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or("write it with `=`, such as users=20")?;
    Ok((key.to_owned(), value.to_owned()))
}
