//! What surrounds a running module: verified contexts and pools. The router's state.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use waangu_identity::proof::Access;
use waangu_identity::{ContextVerifier, Jwks, Rejection, RequestContext};
use waangu_kernel::entitlement::Catalogue;
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Clock, SystemClock};
use waangu_process::Watched;
use waangu_tenancy::{CellAddress, Pools, Rules};

/// A module process's configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The file of public keys whose contexts are accepted (a JWKS); replaced while the module runs.
    pub(crate) gateway_keys: PathBuf,
    /// The cells, with this module's password on each.
    pub(crate) cells: Vec<CellAddress>,
    /// The same, with the password of the login that reads subtrees.
    #[serde(default)]
    pub(crate) tree_cells: Vec<CellAddress>,
}

/// The router's state. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    verifier: Arc<Watched<ContextVerifier>>,
    pub(crate) pools: Pools,
    pub(crate) tree_pools: Pools,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) declared: Arc<Catalogue>,
}

impl Host {
    pub(crate) fn new(manifest: &Manifest, config: Config) -> io::Result<Self> {
        let module = &manifest.id;
        let id = module.clone();
        let verifier = Watched::open(&config.gateway_keys, move |bytes| {
            let keys: Jwks = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            Ok(ContextVerifier::new(&id, &keys.keys))
        })?;
        let pools = |access: Access, cells| {
            Pools::guarded(access.login(module), cells, Rules::new([manifest]))
        };
        Ok(Self {
            verifier: Arc::new(verifier),
            pools: pools(Access::Write, config.cells),
            tree_pools: pools(Access::Tree, config.tree_cells),
            clock: Arc::new(SystemClock),
            declared: Arc::new(Catalogue::of_module(manifest)),
        })
    }

    /// A host that verifies nothing.
    #[cfg(test)]
    pub(crate) fn with(manifest: &Manifest, pools: Pools) -> Self {
        Self {
            verifier: Arc::new(Watched::fixed(ContextVerifier::new(&manifest.id, &[]))),
            tree_pools: pools.clone(),
            pools,
            clock: Arc::new(SystemClock),
            declared: Arc::new(Catalogue::of_module(manifest)),
        }
    }

    /// Verifies a context. A key that is not known yet may have been published just now: so a new
    /// key is accepted from its first use.
    pub(crate) fn verify(&self, jws: &str) -> Result<RequestContext, Rejection> {
        let now = self.clock.unix_seconds();
        match self.verifier.get().verify(jws, now) {
            Err(Rejection::UnknownKey) => self.verifier.look_again().verify(jws, now),
            decided => decided,
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({:?})", self.pools)
    }
}
