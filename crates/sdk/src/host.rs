//! What surrounds a running module: verified contexts and pools. The router's state.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use waangu_identity::proof::Access;
use waangu_identity::{ContextVerifier, PublicKey};
use waangu_kernel::entitlement::Catalogue;
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Clock, SystemClock};
use waangu_tenancy::{CellAddress, Pools, Rules};

/// A module process's configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Public keys of the gateways whose contexts are accepted.
    pub(crate) gateway_keys: Vec<PublicKey>,
    /// The cells, with this module's password on each.
    pub(crate) cells: Vec<CellAddress>,
    /// The same, with the password of the login that reads subtrees.
    #[serde(default)]
    pub(crate) tree_cells: Vec<CellAddress>,
}

/// The router's state. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    pub(crate) verifier: Arc<ContextVerifier>,
    pub(crate) pools: Pools,
    pub(crate) tree_pools: Pools,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) declared: Arc<Catalogue>,
}

impl Host {
    pub(crate) fn new(manifest: &Manifest, config: Config) -> Self {
        let module = &manifest.id;
        let pools = |access: Access, cells| {
            Pools::guarded(access.login(module), cells, Rules::new([manifest]))
        };
        Self {
            verifier: Arc::new(ContextVerifier::new(module, &config.gateway_keys)),
            pools: pools(Access::Write, config.cells),
            tree_pools: pools(Access::Tree, config.tree_cells),
            clock: Arc::new(SystemClock),
            declared: Arc::new(Catalogue::of_module(manifest)),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({:?})", self.pools)
    }
}
