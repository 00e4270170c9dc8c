//! The platform that the fleet's measurements run on: one cell, and one module, `ledger20`.
//!
//! Invariant: its programs are those under test. They stand in a folder of their own, because `up` takes
//! for a module every `waangu-…` beside it; the module's program is this one, by another name.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use waangu_api::Client;

use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::peers::ledger20;
use crate::peers::server::Server;
use crate::platform::Platform;
use crate::scratch::Scratch;

/// The one cell, with the control database.
pub(crate) const CELL: &str = "eu-west-1a";

/// The one country.
pub(crate) const COUNTRY: &str = "IE";

/// What `{bucket_limit}` stands for depends on what is measured.
const WORLD: &str = r#"
version = 1

[[environments]]
id = "dev"

[[regions]]
id = "aws-eu-west-1"
provider = "aws"
country = "IE"
name = "AWS Ireland"

[[countries]]
code = "IE"
regions = ["aws-eu-west-1"]
kin_abroad = true

[[cells]]
id = "eu-west-1a"
region = "aws-eu-west-1"
sla = "high"
capacity = 1000000
bucket_limit = {bucket_limit}

[[profiles]]
id = "sme"
title = { en = "Small and medium enterprise" }
tier = "shared"
modules = ["ledger20"]
roles = ["tenant-admin"]
retention_days = 1095
"#;

/// A platform that runs.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) platform: Platform,
    /// A client of the admin API, as its operator.
    pub(crate) admin: Client,
    /// The cell's server.
    pub(crate) server: Server,
    /// The platform's state is in `state`, its programs in `programs`.
    pub(crate) scratch: Scratch,
}

impl Stage {
    /// Starts an empty platform, with so many schemas at most in a database and these further arguments of
    /// `up`.
    pub(crate) async fn build(
        context: &Context,
        bucket_limit: u32,
        arguments: &[&str],
    ) -> Result<Self, Failure> {
        let scratch = Scratch::new()?;
        let programs = programs(context, &scratch)?;
        let fleet = scratch.path("state").join("fleet");
        let mut folders = DirBuilder::new();
        folders.recursive(true).mode(0o711);
        folders.create(&fleet).of(fleet.display())?;
        let world = WORLD.replace("{bucket_limit}", &bucket_limit.to_string());
        std::fs::write(fleet.join("bench.toml"), world).of(fleet.display())?;
        let mut all = vec!["--http-port", "0"];
        all.extend_from_slice(arguments);
        let (platform, _start) = Platform::start(&programs, &scratch, &all).await?;
        Ok(Self {
            admin: platform.admin()?,
            server: Server::of(&platform, CELL)?,
            platform,
            scratch,
        })
    }

    /// Lets the server count statements, which takes another start.
    pub(crate) async fn counting(self, arguments: &[&str]) -> Result<Self, Failure> {
        let client = self.server.connect("postgres").await?;
        let sql = "select count(*) from pg_available_extensions where name = 'pg_stat_statements'";
        let there: i64 = client
            .query_one(sql, &[])
            .await
            .of(sql)?
            .try_get(0)
            .of(sql)?;
        if there == 0 {
            return Err(Failure::new("PostgreSQL here has no pg_stat_statements"));
        }
        for sql in [
            "alter system set shared_preload_libraries = 'pg_stat_statements'",
            "create extension pg_stat_statements",
        ] {
            client.batch_execute(sql).await.of(sql)?;
        }
        drop(client);
        let Self {
            platform, scratch, ..
        } = self;
        platform.stop().await?;
        let (platform, _start) =
            Platform::start(&scratch.path("programs"), &scratch, arguments).await?;
        Ok(Self {
            admin: platform.admin()?,
            server: Server::of(&platform, CELL)?,
            platform,
            scratch,
        })
    }

    /// The file of the module's package. A control plane that starts reads it anew.
    pub(crate) fn package(&self) -> PathBuf {
        let packages = self.scratch.path("state").join("packages");
        packages.join(format!("{}.json", ledger20::ID))
    }

    /// Stops it and removes all of it.
    pub(crate) async fn strike(self) -> Result<(), Failure> {
        self.platform.stop().await?;
        self.scratch.remove()
    }
}

fn programs(context: &Context, scratch: &Scratch) -> Result<PathBuf, Failure> {
    let folder = scratch.path("programs");
    std::fs::create_dir(&folder).of(folder.display())?;
    let own = std::env::current_exe().of("this program")?;
    place(&context.programs.join("waangu"), &folder.join("waangu"))?;
    place(&own, &folder.join(ledger20::PROGRAM))?;
    Ok(folder)
}

/// The same file under another name, or a copy where that can't be.
fn place(from: &Path, to: &Path) -> Result<(), Failure> {
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(from, to).map(drop).of(from.display())
}
