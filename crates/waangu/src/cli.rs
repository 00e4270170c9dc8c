//! The command line, asserted by a test to be consistent.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use waangu_control::KEY_GRACE_SECONDS;
use waangu_process::ServeOptions;

use crate::output::Format;

mod advisor;
mod flags;
mod fleet;
mod import;
mod moves;

pub(crate) use advisor::AdvisorOptions;
pub(crate) use flags::{FlagCommand, PlanCommand, PlanPut};
pub(crate) use fleet::{FleetCommand, FleetUpgrade};
pub(crate) use import::TenantImport;
pub(crate) use moves::TenantMove;

/// Waangu 360: one installation serves thousands of client organisations.
#[derive(Debug, Parser)]
#[command(name = "waangu", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The form of results.
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// The state folder of a platform on this machine.
    #[arg(
        long,
        global = true,
        env = "WAANGU_STATE",
        default_value = ".waangu",
        value_name = "DIR"
    )]
    pub(crate) state: PathBuf,
    /// The ready file that tells where the platform is (default: ready.json in the state folder).
    #[arg(
        long,
        global = true,
        env = "WAANGU_READY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) ready_file: Option<PathBuf>,
}

impl Global {
    /// Where the ready file is.
    pub(crate) fn ready_path(&self) -> PathBuf {
        self.ready_file
            .clone()
            .unwrap_or_else(|| self.state.join("ready.json"))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole platform on this machine: PostgreSQL, control plane, gateway, modules.
    Up(UpOptions),
    /// Run the control plane (admin API, directory, reconciler).
    Control(ServeOptions),
    /// Run the gateway.
    Gateway(ServeOptions),
    /// Onboard tenants and look after them.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// See modules; switch them on and off for a tenant.
    #[command(subcommand)]
    Module(ModuleCommand),
    /// A tenant's people.
    #[command(subcommand)]
    User(UserCommand),
    /// What a tenant's people may do.
    #[command(subcommand)]
    Role(RoleCommand),
    /// Who changed what.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The PostgreSQL servers that hold tenants.
    #[command(subcommand)]
    Cell(CellCommand),
    /// All tenants at once: how they fare, and newer versions for them.
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// A tenant's flags and limits, and what each value comes from.
    #[command(subcommand)]
    Flag(FlagCommand),
    /// Plans: named sets of flags and limits that tenants subscribe to.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// The keys that the gateway signs with.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Where tenants would be better off, and why: sector, volume, traffic, service level. Nothing is moved.
    Advisor(AdvisorOptions),
    /// Make environments, regions, countries, profiles and cells as the world files declare them.
    Apply(ApplyOptions),
    /// Let a module's version go on to the next environment; without arguments, say what ran where.
    Promote(PromoteOptions),
    /// Check what the platform needs and what runs, and say how to mend what is wrong.
    Doctor(DoctorOptions),
    /// Print the admin API's OpenAPI 3.1 document.
    Openapi,
    /// Write reference documentation.
    #[command(subcommand)]
    Docs(DocsCommand),
}

#[derive(Debug, Args)]
pub(crate) struct DoctorOptions {
    /// What to look at more closely.
    #[command(subcommand)]
    pub(crate) command: Option<DoctorCommand>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum DoctorCommand {
    /// Prove on the live catalogues of all cells that tables, policies, rights and roles keep tenants
    /// apart; name each drift and the statement that mends it.
    Isolation,
}

#[derive(Debug, Args)]
pub(crate) struct UpOptions {
    /// Onboard the demo fleet: six organisations in all three isolation models.
    #[arg(long)]
    pub(crate) demo: bool,
    /// The gateway's port (default: the one used before, else 8443).
    #[arg(long, value_name = "N")]
    pub(crate) http_port: Option<u16>,
    /// The folder of PostgreSQL's programs, if the one to use is not found by itself.
    #[arg(
        long,
        env = "WAANGU_PG_BIN",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub(crate) pg_bin: Option<PathBuf>,
    /// Where downloaded PostgreSQL programs are kept (default: waangu/postgresql in the user's cache folder).
    #[arg(
        long,
        env = "WAANGU_PG_CACHE",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub(crate) pg_cache: Option<PathBuf>,
    /// Leave existing tenants on their modules' old versions until `waangu fleet upgrade`, as production
    /// does; otherwise all follow at the start.
    #[arg(long)]
    pub(crate) hold_upgrades: bool,
    /// Databases that each cell keeps ready for dedicated tenants to come, and schemas of each module for
    /// those of the schema tier.
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub(crate) stock: u32,
    /// How long a deleted tenant's slug stays taken, in seconds.
    #[arg(long, default_value_t = 30 * 24 * 3600, value_name = "SECONDS")]
    pub(crate) name_grace: i64,
    /// How long the rows of a tenant that has moved stay at its old place, in seconds.
    #[arg(long, default_value_t = 15 * 60, value_name = "SECONDS")]
    pub(crate) move_grace: i64,
    /// How long a key that was replaced is still accepted, in seconds. Less than a request's context
    /// lives (60, and 6 for clocks and files) refuses slow requests: for tests.
    #[arg(long, default_value_t = KEY_GRACE_SECONDS, value_name = "SECONDS")]
    pub(crate) key_grace: i64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Onboard a tenant and wait until it is served.
    Create(TenantCreate),
    /// Onboard many tenants from a file of comma-separated values. It may be ended at any moment and
    /// run again.
    Import(TenantImport),
    /// All tenants.
    List,
    /// One tenant.
    Show {
        /// The tenant.
        slug: String,
    },
    /// All tenants as a tree: country, tenant, sub-tenant.
    Tree,
    /// Why a tenant lives where it does, and where it would be placed today.
    Explain {
        /// The tenant.
        slug: String,
    },
    /// Let a tenant differ from its profile in one setting; without a value, no longer.
    Set {
        /// The tenant.
        slug: String,
        /// sla, roles, retention_days, mfa or reports.
        key: String,
        /// The value, as JSON or plain text.
        #[arg(allow_negative_numbers = true)]
        value: Option<String>,
    },
    /// Stop serving a tenant; its data is kept.
    Suspend {
        /// The tenant.
        slug: String,
    },
    /// Serve a suspended tenant again.
    Resume {
        /// The tenant.
        slug: String,
    },
    /// Remove a tenant and all its data. The audit stays.
    Delete {
        /// The tenant.
        slug: String,
        /// Yes, remove all its data.
        #[arg(long)]
        yes: bool,
    },
    /// Move a tenant to another tier, cell or region while its people work.
    Move(TenantMove),
    /// The newest moves, of one tenant or of all.
    Moves {
        /// The tenant.
        slug: Option<String>,
    },
    /// Undo a tenant's move, as long as it is not behind its commit point.
    CancelMove {
        /// The tenant.
        slug: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TenantCreate {
    /// Its name in addresses: a-z, 0-9, hyphens.
    pub(crate) slug: String,
    /// Its name for people (default: the slug).
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// ISO 3166-1 alpha-2, such as SN.
    #[arg(long)]
    pub(crate) country: String,
    /// The parent's slug.
    #[arg(long)]
    pub(crate) parent: Option<String>,
    /// sme, government, fintech or multisite.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// shared, schema or dedicated (default: the profile's).
    #[arg(long)]
    pub(crate) tier: Option<String>,
    /// The service level: standard or high (default: the profile's).
    #[arg(long)]
    pub(crate) sla: Option<String>,
    /// Modules to switch on (default: the profile's).
    #[arg(long, value_delimiter = ',')]
    pub(crate) modules: Option<Vec<String>>,
    /// The plan it subscribes to.
    #[arg(long)]
    pub(crate) plan: Option<String>,
    /// Makes a repeated call safe.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModuleCommand {
    /// Installed modules.
    List,
    /// Switch a module on for a tenant.
    Enable {
        /// The tenant.
        slug: String,
        /// The module.
        module: String,
    },
    /// Switch a module off for a tenant; its data is kept.
    Disable {
        /// The tenant.
        slug: String,
        /// The module.
        module: String,
    },
    /// Bring the installed version to all tenants (the same as `fleet upgrade`).
    Upgrade(FleetUpgrade),
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// A tenant's users.
    List {
        /// The tenant.
        slug: String,
    },
    /// Create a user; without --password, one is made and printed once.
    Create {
        /// The tenant.
        slug: String,
        /// Its name within the tenant.
        username: String,
        /// Its name for people.
        #[arg(long)]
        name: Option<String>,
        /// Its password.
        #[arg(long, env = "WAANGU_PASSWORD", hide_env_values = true)]
        password: Option<String>,
        /// Its roles: tenant-admin, or module.role such as inventory.clerk.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// Remove a user.
    Delete {
        /// The tenant.
        slug: String,
        /// The user.
        username: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Roles that can be given.
    List,
    /// Replace a user's roles.
    Set {
        /// The tenant.
        slug: String,
        /// The user.
        username: String,
        /// The new roles; none takes all away.
        roles: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// The newest acts.
    Tail {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CellCommand {
    /// All cells.
    List,
    /// One cell.
    Show {
        /// The cell.
        id: String,
    },
    /// Declare one more cell.
    Add(CellAdd),
    /// Place nobody there any more; say what remains, where it could go, or why it can't.
    Drain {
        /// The cell.
        id: String,
    },
    /// Place tenants there again.
    Activate {
        /// The cell.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CellAdd {
    /// Its id.
    pub(crate) id: String,
    /// The region it stands in.
    #[arg(long)]
    pub(crate) region: String,
    /// How many tenants it may hold.
    #[arg(long, value_name = "N")]
    pub(crate) capacity: i32,
    /// How many bytes it may hold (default: no bound).
    #[arg(long, value_name = "BYTES")]
    pub(crate) capacity_bytes: Option<i64>,
    /// How many connections it may have (default: no bound).
    #[arg(long, value_name = "N")]
    pub(crate) capacity_connections: Option<i32>,
    /// How many tenants one of its schema-tier databases may hold.
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub(crate) bucket_limit: i32,
    /// The best service level that it is run for: standard or high.
    #[arg(long, default_value = "standard")]
    pub(crate) sla: String,
    /// Host name or address.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// TCP port.
    #[arg(long)]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyOptions {
    /// The folder of the world files.
    #[arg(long, default_value = "fleet")]
    pub(crate) dir: PathBuf,
    /// Only say what would change.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove what is not declared and not used.
    #[arg(long)]
    pub(crate) prune: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PromoteOptions {
    /// The module, with its version if not the newest: inventory@1.2.0.
    #[arg(requires = "to")]
    pub(crate) module: Option<String>,
    /// The environment that may receive it.
    #[arg(long, value_name = "ENVIRONMENT", requires = "module")]
    pub(crate) to: Option<String>,
    /// Write what is known here to a file, for the installations of other environments.
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    /// Take in the file of another environment's installation.
    #[arg(long, value_name = "FILE", conflicts_with = "module")]
    pub(crate) import: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// All keys that are accepted, and how far each is: next, current, retiring.
    List,
    /// Replace keys while requests flow, and wait until the old ones are not accepted any more (a
    /// little more than a minute). Stopped, or killed at any point, the control plane goes on with it;
    /// repeated, it joins what is under way.
    Rotate {
        /// Which of them.
        #[arg(value_enum, default_value = "all")]
        kind: RotateKind,
        /// Only begin; `waangu key list` shows how far it is.
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RotateKind {
    /// What signs the contexts that modules verify.
    Context,
    /// What proves contexts to PostgreSQL.
    Proof,
    /// Both.
    All,
}

impl RotateKind {
    /// Its name in the admin API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Proof => "proof",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum DocsCommand {
    /// Write one page for each of the platform's errors.
    Errors {
        /// The folder to write to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Print the command line's reference, in Markdown.
    Cli,
    /// Print the JSON Schema of the world files.
    Fleet,
}

/// The command line's reference, in Markdown: each command with its own help text.
pub(crate) fn reference<C: CommandFactory>() -> String {
    let mut text = "# Command line\n\nGenerated by `cargo xtask codegen`.\n".to_owned();
    let mut root = C::command();
    root.build();
    describe(&mut text, &mut root);
    text
}

fn describe(text: &mut String, command: &mut clap::Command) {
    if command.get_name() == "help" {
        return;
    }
    let name = command
        .get_bin_name()
        .unwrap_or(command.get_name())
        .to_owned();
    // One width everywhere, whatever terminal it was generated on.
    let help = command.clone().term_width(100).render_long_help();
    let help = help.to_string();
    *text += &[
        "\n## `",
        &name,
        "`\n\n```text\n",
        help.trim_end(),
        "\n```\n",
    ]
    .concat();
    for sub in command.get_subcommands_mut() {
        describe(text, sub);
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    /// A clash of options would show only when somebody uses that very command.
    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
