//! django-tenants: a schema for each tenant, by migrations or by its clone, and its fleet's migrations.
//!
//! Its migrations run the same SQL as ours (`RunSQL`, which costs it less than models would). Two ways of
//! onboarding, both as its documentation has them: `save()`, and `save()` with a base schema to clone.

pub(crate) mod upgrade;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::crew::Crew;
use super::ledger20::{self, Side};
use super::python::{output, python};
use super::server::Server;
use super::{Pass, ledger20::TABLES};
use crate::failure::{Failure, Of as _};
use crate::scratch::Scratch;

/// Pinned: a result names what it was measured with.
pub(crate) const PACKAGES: &[&str] = &[
    "django-tenants==4.0.1",
    "Django==5.2.19",
    "psycopg[binary]==3.3.9",
];

/// What these packages are imported as.
pub(crate) const IMPORTS: &str = "django_tenants, psycopg";

pub(crate) const DATABASE: &str = "bench_django";

/// Longest time of a command over all tenants.
const PATIENCE: Duration = Duration::from_mins(15);

/// The schema that others are cloned from.
const PATTERN: &str = "pattern";

/// The project's files.
const FILES: [(&str, &str); 7] = [
    ("settings.py", include_str!("django/settings.py")),
    ("manage.py", include_str!("django/manage.py")),
    ("worker.py", include_str!("django/worker.py")),
    ("clients/__init__.py", ""),
    ("clients/models.py", include_str!("django/models.py")),
    ("ledger20/__init__.py", ""),
    ("ledger20/migrations/__init__.py", ""),
];

/// How a tenant is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Save,
    Clone,
}

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Save, Self::Clone];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Save => "django-tenants, save()",
            Self::Clone => "django-tenants, clone",
        }
    }

    fn request(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Clone => "clone",
        }
    }
}

/// A project with its database.
#[derive(Debug)]
pub(crate) struct Django {
    server: Server,
    python: PathBuf,
    folder: PathBuf,
    workers: usize,
    crew: Crew,
    /// The name of the project's last migration.
    last: String,
    /// Of the packages, for the report.
    pub(crate) versions: String,
}

impl Django {
    /// Writes the project, makes its database, the public schema and the pattern, and starts so many
    /// workers.
    pub(crate) async fn prepare(
        server: &Server,
        scratch: &Scratch,
        workers: usize,
    ) -> Result<Self, Failure> {
        let python = python(IMPORTS, PACKAGES).await?;
        let folder = scratch.path("django");
        for (name, text) in FILES {
            write(&folder.join(name), text)?;
        }
        let mut before = None;
        for (name, sql) in ledger20::migrations(Side::Plain) {
            deploy(&folder, name, before, &sql)?;
            before = Some(name);
        }
        server.createdb(&[], DATABASE).await?;
        let mut shared = command(server, &python, &folder, "manage.py");
        shared.args(["migrate_schemas", "--shared", "--run-syncdb", "-v", "0"]);
        output(shared, PATIENCE).await?;
        let mut freeze = Command::new(&python);
        freeze.args(["-m", "pip", "freeze"]);
        let versions = versions(&output(freeze, PATIENCE).await?);
        let mut django = Self {
            server: server.clone(),
            python,
            folder,
            workers,
            crew: Crew::default(),
            last: before.unwrap_or_default().to_owned(),
            versions,
        };
        django.restart().await?;
        django.crew.run(1, PATTERN, 0..1).await?;
        Ok(django)
    }

    /// Ends what its workers and the server are still busy with, and starts new workers.
    pub(crate) async fn restart(&mut self) -> Result<(), Failure> {
        self.crew = Crew::default();
        let server = self.server.connect("postgres").await?;
        let end = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1";
        server.query(end, &[&DATABASE]).await.of(DATABASE)?;
        let start = || {
            let mut worker = command(&self.server, &self.python, &self.folder, "worker.py");
            worker.arg(TABLES.to_string());
            worker
        };
        self.crew = Crew::start(self.workers, &self.folder, start).await?;
        Ok(())
    }

    /// A tenant for each number, by so many processes at once.
    pub(crate) async fn onboard(
        &mut self,
        way: Way,
        at_once: usize,
        numbers: std::ops::Range<usize>,
    ) -> Result<Pass, Failure> {
        let what = way.request();
        let pass = self.crew.run(at_once, what, numbers.clone()).await?;
        // A clone that left something out would be fast.
        if let Some(last) = numbers.last() {
            let check = format!("check {what}_{last}");
            self.crew.run(1, &check, 0..1).await?;
        }
        Ok(pass)
    }
}

fn command(server: &Server, python: &Path, folder: &Path, script: &str) -> Command {
    let mut command = Command::new(python);
    command
        .current_dir(folder)
        .arg(script)
        .envs(server.environment())
        .env("PGDATABASE", DATABASE);
    command
}

fn deploy(folder: &Path, name: &str, before: Option<&str>, sql: &str) -> Result<(), Failure> {
    let depends = before.map_or_else(String::new, |before| {
        format!("(\"ledger20\", \"{before}\")")
    });
    let text = format!(
        "from django.db import migrations\n\n\n\
         class Migration(migrations.Migration):\n    \
             dependencies = [{depends}]\n    \
             operations = [migrations.RunSQL(\"\"\"\n{sql}\"\"\")]\n"
    );
    write(
        &folder.join(format!("ledger20/migrations/{name}.py")),
        &text,
    )
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).of(folder.display())?;
    }
    std::fs::write(path, text).of(path.display())
}

/// The interesting lines of `pip freeze`.
fn versions(all: &str) -> String {
    let names = PACKAGES
        .iter()
        .filter_map(|package| package.split(['=', '[']).next());
    let names: Vec<&str> = names.collect();
    let of = |line: &&str| {
        names
            .iter()
            .any(|name| line.starts_with(&format!("{name}==")))
    };
    all.lines().filter(of).collect::<Vec<_>>().join(", ")
}
