//! What people do by hand for a new tenant's database, with the server's own `createdb` and `psql`.
//!
//! Two ways, each as good as we know how to do it (no wrapper, `--no-psqlrc`, one transaction for the
//! whole file): an empty database and the script, and a copy of a database in which the script has run.
//! What both leave out is theirs to add: row-level security, logins, a registry, routing, an audit.
//!
//! Not here: `createdb --strategy=file_copy`. Its two checkpoints took 2 s for each database on a busy
//! server, and slowed down everybody beside it.

use std::path::PathBuf;

use super::ledger20::{self, Side};
use super::server::Server;
use super::{Pass, Tries};
use crate::failure::{Failure, Of as _};
use crate::scratch::Scratch;

const TEMPLATE: &str = "by_hand_template";

/// How a database is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `createdb` and `psql -f`.
    Script,
    /// `createdb -T` of a database that has the tables.
    Template,
}

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Script, Self::Template];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Script => "createdb, psql -f",
            Self::Template => "createdb -T",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Script => "by_hand_s",
            Self::Template => "by_hand_t",
        }
    }
}

/// The tools and the script.
#[derive(Debug)]
pub(crate) struct ByHand {
    server: Server,
    script: PathBuf,
}

impl ByHand {
    /// Writes the script and makes the template.
    pub(crate) async fn prepare(server: &Server, scratch: &Scratch) -> Result<Self, Failure> {
        let script = scratch.path("ledger20.sql");
        std::fs::write(&script, ledger20::whole(Side::Plain)).of(script.display())?;
        let hand = Self {
            server: server.clone(),
            script,
        };
        hand.create(Way::Script, TEMPLATE).await?;
        Ok(hand)
    }

    /// A database for each number.
    pub(crate) async fn onboard(
        &self,
        way: Way,
        at_once: usize,
        numbers: std::ops::Range<usize>,
    ) -> Result<Pass, Failure> {
        Pass::run(0..at_once, numbers, async |_doer, number| {
            let name = format!("{}_{number}", way.prefix());
            self.create(way, &name).await?;
            Ok(Tries::default())
        })
        .await
    }

    async fn create(&self, way: Way, name: &str) -> Result<(), Failure> {
        let options: &[&str] = match way {
            Way::Script => &[],
            Way::Template => &["--template", TEMPLATE],
        };
        self.server.createdb(options, name).await?;
        if way == Way::Template {
            return Ok(());
        }
        let script = self.script.display().to_string();
        let arguments = ["--file".to_owned(), script];
        self.server.psql(name, &arguments).await
    }
}
