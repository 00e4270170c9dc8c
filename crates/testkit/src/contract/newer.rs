//! A released program on the tables of a later package: what an upgrade of many tenants looks like to
//! the processes that are still running.
//!
//! Two kinds of proof, because each sees what the other can't: the catalogues of both packages are
//! compared, which covers what no example touches; and the released program answers its own examples on
//! the newer tables, which covers what triggers, functions and new values do.
//!
//! Left out: new programs on old tables. A module's process starts when its tables are there.

use waangu_kernel::placement::Tier;
use waangu_tenancy::ModulePackage;
use waangu_tenancy::admin::UpgradeLimits;

use super::{Example, Party, Seeded, Stage, routes, rules};
use crate::private_cell;
use crate::world::{Caller, EVERYTHING, World, package};

/// A released program, in front of a cell of its own.
#[derive(Debug)]
pub struct Released {
    world: World,
}

impl Released {
    /// Starts the program.
    ///
    /// # Panics
    /// When it can't be started.
    pub async fn start(program: &str) -> Self {
        Self {
            world: World::start_on(private_cell().await, program).await,
        }
    }

    /// What the program says of itself.
    pub fn package(&self) -> &ModulePackage {
        &self.world.package
    }

    /// What the catalogues say that the program could not do any more.
    ///
    /// # Panics
    /// When a migration fails.
    pub async fn incompatibilities(&self, newer: &ModulePackage) -> Vec<String> {
        let admin = &self.world.cell.admin;
        let found = admin.incompatibilities(self.package(), newer).await;
        found.expect("try the newer package")
    }

    /// Books something, brings the tenant's tables to the newer package under the running program, and
    /// runs its examples. Returns those that fail, with the answer. In the shared tier all tenants'
    /// tables are brought there, for good.
    ///
    /// # Panics
    /// When the newer package can't be installed over the program's own.
    pub async fn failing(
        &self,
        tier: Tier,
        newer: &ModulePackage,
        seed: impl AsyncFn(Caller<'_>, &str) -> Seeded,
    ) -> Vec<String> {
        let world = &self.world;
        let ours = world.tenant(tier).await;
        let theirs = world.neighbour(&ours).await;
        for home in [&ours, &theirs] {
            world.below(home, &[]).await;
        }
        let ours_seeded = seed(world.caller(&ours, EVERYTHING), "ours-only-7b2e").await;
        let theirs_seeded = seed(world.caller(&theirs, EVERYTHING), "theirs-only-91cd").await;
        let stage = Stage {
            world,
            tier,
            ours: Party {
                home: &ours,
                seeded: ours_seeded,
            },
            theirs: Party {
                home: &theirs,
                seeded: theirs_seeded,
            },
            rules: rules(world),
        };
        let mut failing = Vec::new();
        for party in [&stage.ours, &stage.theirs] {
            self.upgrade(party, newer).await;
            failing.extend(run(&stage, party).await);
        }
        failing
    }

    async fn upgrade(&self, party: &Party<'_>, newer: &ModulePackage) {
        let (tenant, placement) = party.home;
        let schema = placement.schema(*tenant, newer.id());
        let database = placement.database(*tenant);
        let steps = self.package().migrations.len();
        let done = async {
            let admin = &self.world.cell.admin;
            let limits = UpgradeLimits::default();
            let mut upgrader = admin.upgrader(&database, newer, limits).await?;
            upgrader.upgrade(&schema, steps).await
        };
        done.await.expect("bring the tables to the newer package");
    }
}

/// Runs the examples of the routes that the program has.
async fn run(stage: &Stage<'_>, party: &Party<'_>) -> Vec<String> {
    let manifest = &stage.world.package.manifest;
    let has = |example: &&Example| {
        let mut routes = manifest.routes.iter();
        routes.any(|route| route.path == example.route && route.method == example.method.as_str())
    };
    let mut failing = Vec::new();
    for example in party.seeded.examples.iter().filter(has) {
        let answer = routes::call(stage, party, example).await;
        if !answer.status.is_success() {
            let Example { method, path, .. } = example;
            failing.push(format!("{}: {method} {path}: {answer:?}", stage.tier));
        }
    }
    failing
}

/// Lets a released program work on the tables of another program's package, in all three tiers. Examples
/// of routes that the released one does not have are passed over.
///
/// # Panics
/// When the released program could not go on beside the newer one.
pub async fn withstand_newer(
    released: &str,
    newer: &str,
    seed: impl AsyncFn(Caller<'_>, &str) -> Seeded,
) {
    let newer = package(newer).await;
    let released = Released::start(released).await;
    let found = released.incompatibilities(&newer).await;
    assert!(found.is_empty(), "the newer tables lack: {found:#?}");
    for tier in Tier::ALL {
        let failing = released.failing(tier, &newer, &seed).await;
        assert!(failing.is_empty(), "on the newer tables fail: {failing:#?}");
    }
}
