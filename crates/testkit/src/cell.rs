//! A cell for tests: prepared once, its tenants numbered so that tests never meet.

use std::sync::atomic::{AtomicI64, Ordering};

use waangu_identity::proof::{Access, ProofClaims};
use waangu_identity::{ContextKey, RequestContext};
use waangu_kernel::entitlement::Values;
use waangu_kernel::manifest::Manifest;
use waangu_kernel::placement::Tier;
use waangu_kernel::{Clock as _, ModuleId, Placement, RequestId, SystemClock, TenantId, UserId};
use waangu_tenancy::{CellAddress, CellAdmin, CellAdminConfig, Limits, LoginSecret, Pools, Rules};

use crate::server::{HOST, PASSWORD, SUPERUSER, Server, cluster};

/// Modules that have a login on every test cell.
pub const MODULES: [&str; 4] = ["stock", "crm", "ledger", "inventory"];

/// Life of a test's proof, in seconds.
const LIFETIME: i64 = 60;

/// A prepared cell, with its administrator's connections.
///
/// Make one in each test: connections are driven by the runtime that opened them.
#[derive(Debug)]
pub struct Cell {
    /// The control plane's side.
    pub admin: CellAdmin,
    /// The key whose proofs the cell accepts.
    pub key: ContextKey,
    server: Server,
}

/// The shared server as a cell.
pub async fn cell() -> Cell {
    Cell::on(cluster().await)
}

/// A cell on a server of its own; costs a second or two.
///
/// # Panics
/// As [`cluster`].
pub async fn private_cell() -> Cell {
    let start = || Server::start(|server| Box::pin(prepare(server)));
    let server = tokio::task::spawn_blocking(start)
        .await
        .expect("a private test server starts");
    Cell::on(&server)
}

/// A context as the gateway would make it, good for a minute.
pub fn context(
    tenant: TenantId,
    placement: &Placement,
    module: &ModuleId,
    access: Access,
    key: &ContextKey,
) -> RequestContext {
    let (request, actor) = (RequestId::generate(), UserId::generate());
    let expires = SystemClock.unix_seconds() + LIFETIME;
    let proof = key.prove(&ProofClaims {
        login: &access.login(module),
        tenant: tenant.number(),
        epoch: placement.epoch,
        expires,
        access,
        actor: &actor.to_string(),
        request: &request.to_string(),
    });
    RequestContext {
        module: module.clone(),
        request,
        tenant,
        slug: parsed(&format!("t{}", tenant.number())),
        placement: placement.clone(),
        heading: None,
        actor,
        permissions: Vec::new(),
        access,
        places: Vec::new(),
        flags: Values::new(),
        expires,
        proof,
        visited: None,
    }
}

impl Cell {
    fn on(server: &Server) -> Self {
        Self {
            admin: admin(server),
            key: key(),
            server: server.clone(),
        }
    }

    /// A second administrator of the same cell, as another control process would be.
    pub fn another_admin(&self) -> CellAdmin {
        admin(&self.server)
    }

    /// What [`CellAdmin::prepare`] was called with.
    pub fn logins() -> Vec<LoginSecret> {
        MODULES
            .iter()
            .map(|module| LoginSecret {
                module: parsed(module),
                password: password(module),
                tree_password: tree_password(module),
            })
            .collect()
    }

    /// A tenant number and a place that nobody else has; a schema-tier tenant gets its own bucket.
    /// Nothing exists there yet.
    ///
    /// # Panics
    /// Never: numbers don't run out.
    pub fn tenant(&self, tier: Tier) -> (TenantId, Placement) {
        static NEXT: AtomicI64 = AtomicI64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bucket = if tier == Tier::Schema { number } else { 0 };
        let placement = Placement {
            cell: self.admin.id().clone(),
            tier,
            bucket: i32::try_from(bucket).expect("few tenants in a test"),
            epoch: 1,
        };
        (TenantId::new(number).expect("a positive number"), placement)
    }

    /// A module's pools, as its process would have them.
    pub fn pools(&self, module: &ModuleId) -> Pools {
        Pools::new(module, vec![self.module_address(module)])
    }

    /// The same, which look at a database before they lend a connection to it.
    pub fn guarded_pools(&self, manifest: &Manifest) -> Pools {
        let cells = vec![self.module_address(&manifest.id)];
        let login = Access::Write.login(&manifest.id);
        Pools::guarded(login, cells, Rules::new([manifest]))
    }

    /// The same, with other bounds.
    pub fn limited_pools(&self, module: &ModuleId, limits: Limits) -> Pools {
        let cells = vec![self.module_address(module)];
        Pools::for_login(Access::Write.login(module), cells, limits)
    }

    /// A module's pools for subtrees, likewise.
    pub fn tree_pools(&self, module: &ModuleId) -> Pools {
        Pools::tree(module, vec![self.tree_address(module)])
    }

    /// Gives a module its logins, if it is not one of [`MODULES`].
    ///
    /// # Panics
    /// When the cell refuses.
    pub(crate) async fn admit(&self, module: &ModuleId) {
        if MODULES.contains(&module.as_str()) {
            return;
        }
        let login = LoginSecret {
            module: module.clone(),
            password: password(module.as_str()),
            tree_password: tree_password(module.as_str()),
        };
        let prepared = self
            .admin
            .prepare(&[login], std::slice::from_ref(&self.key))
            .await;
        prepared.expect("give a module its logins");
    }

    pub(crate) fn module_address(&self, module: &ModuleId) -> CellAddress {
        self.address(password(module.as_str()))
    }

    pub(crate) fn tree_address(&self, module: &ModuleId) -> CellAddress {
        self.address(tree_password(module.as_str()))
    }

    fn address(&self, password: String) -> CellAddress {
        CellAddress {
            id: self.admin.id().clone(),
            host: HOST.to_owned(),
            port: self.server.port(),
            password,
        }
    }

    /// A connection string of a module's own login, as a compromised module would hold it.
    pub fn module_dsn(&self, module: &ModuleId, database: &str) -> String {
        let login = Access::Write.login(module);
        self.server
            .dsn(&login, &password(module.as_str()), database)
    }

    /// A connection string of a module's login for subtrees, likewise.
    pub fn tree_dsn(&self, module: &ModuleId, database: &str) -> String {
        let login = Access::Tree.login(module);
        let password = tree_password(module.as_str());
        self.server.dsn(&login, &password, database)
    }

    /// How the cell's administrator reaches it.
    pub fn admin_config(&self) -> CellAdminConfig {
        admin_config(&self.server)
    }

    /// Kills the server (SIGKILL) and starts it again. For a private cell only: others share the rest.
    /// Acknowledged writes are kept only with `synchronous_commit`, which test servers have off.
    ///
    /// # Panics
    /// When it does not start again.
    pub async fn crash(&self) {
        self.server.crash().await;
    }

    /// A connection string of the superuser.
    pub fn superuser_dsn(&self, database: &str) -> String {
        self.server.superuser_dsn(database)
    }
}

pub(crate) async fn prepare(server: &Server) {
    admin(server)
        .prepare(&Cell::logins(), &[key()])
        .await
        .expect("prepare the test cell");
}

fn admin(server: &Server) -> CellAdmin {
    CellAdmin::new(admin_config(server))
}

fn admin_config(server: &Server) -> CellAdminConfig {
    CellAdminConfig {
        id: parsed("test-cell"),
        host: HOST.to_owned(),
        port: server.port(),
        user: SUPERUSER.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

/// One key for the whole process; it need not be secret, only the same everywhere.
fn key() -> ContextKey {
    ContextKey::new(1, [7; 32])
}

fn password(module: &str) -> String {
    format!("of-{module}")
}

fn tree_password(module: &str) -> String {
    format!("of-{module}-tree")
}

fn parsed<T: std::str::FromStr<Err = waangu_kernel::Fault>>(text: &str) -> T {
    text.parse().expect("a name of the test kit is valid")
}
