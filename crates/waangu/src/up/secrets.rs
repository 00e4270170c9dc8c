//! Passwords, tokens and keys: made on the first start, kept in the state folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use waangu_identity::{SigningKey, random_secret};
use waangu_kernel::{CellId, ModuleId};

use super::postgres::existing_major;
use super::state::State;
use crate::config::{KeyFile, parse};
use crate::failure::{Failure, Of as _};

/// `secrets.toml`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secrets {
    /// The operator's bearer token.
    pub(crate) operator_token: String,
    /// The password of every demo user.
    pub(crate) demo_password: String,
    /// Login `waangu_control`.
    pub(crate) control_password: String,
    /// Login `waangu_gateway`.
    pub(crate) gateway_password: String,
    /// Where programs before the ring of keys kept the one that proves contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) context_key: Option<KeyFile>,
    /// The administrator's password of each cell.
    pub(crate) cells: BTreeMap<CellId, String>,
    /// Each module's password.
    pub(crate) modules: BTreeMap<ModuleId, String>,
    /// Each module's password for reading subtrees.
    #[serde(default)]
    pub(crate) trees: BTreeMap<ModuleId, String>,
}

impl Secrets {
    /// Reads the secrets, or makes what is missing.
    pub(crate) fn load(
        state: &State,
        cells: &[CellId],
        modules: &[ModuleId],
    ) -> Result<Self, Failure> {
        let mut secrets = match state.read("secrets.toml")? {
            Some(text) => {
                let path = state.path("secrets.toml");
                let mend = "restore it, or choose another --state";
                parse(&text, path.display())
                    .map_err(|failure| Failure::failed(format!("{failure}; {mend}")))?
            }
            None if existing_major(&state.path("pg"))?.is_some() => {
                return Err(Failure::failed(format!(
                    "{} is gone, and with it the passwords of the databases beside it; restore it, or \
                     choose another --state",
                    state.path("secrets.toml").display()
                )));
            }
            None => Self::make()?,
        };
        for cell in cells {
            if !secrets.cells.contains_key(cell) {
                secrets.cells.insert(cell.clone(), secret()?);
            }
        }
        for module in modules {
            if !secrets.modules.contains_key(module) {
                secrets.modules.insert(module.clone(), secret()?);
            }
            if !secrets.trees.contains_key(module) {
                secrets.trees.insert(module.clone(), secret()?);
            }
        }
        secrets.save(state)?;
        Ok(secrets)
    }

    /// Writes them down.
    pub(crate) fn save(&self, state: &State) -> Result<(), Failure> {
        state.write_toml("secrets.toml", self).map(drop)
    }

    fn make() -> Result<Self, Failure> {
        Ok(Self {
            operator_token: format!("wgo_{}", secret()?),
            demo_password: random_secret::<12>().of("random")?,
            control_password: secret()?,
            gateway_password: secret()?,
            context_key: None,
            cells: BTreeMap::new(),
            modules: BTreeMap::new(),
            trees: BTreeMap::new(),
        })
    }
}

/// The file of a signing key, made on the first start.
pub(crate) fn signing_key(state: &State, name: &str) -> Result<PathBuf, Failure> {
    let path = state.path(name);
    if !path.exists() {
        let key = SigningKey::generate_pkcs8().of("key")?;
        state.write(name, &key)?;
    }
    Ok(path)
}

/// 24 random bytes, URL-safe.
fn secret() -> Result<String, Failure> {
    random_secret::<24>().of("random")
}
