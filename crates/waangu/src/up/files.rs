//! Configuration files of the processes of one platform, and how to start them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use waangu_api::world::World;
use waangu_control::{KeyFiles, MoveLimits, RolloutLimits};
use waangu_identity::sha256_hex;
use waangu_kernel::ModuleId;
use waangu_tenancy::CellAddress;

use super::children::ChildSpec;
use super::packages::Programs;
use super::postgres::{CONTROL_DATABASE, SUPERUSER, Server};
use super::secrets::{Secrets, signing_key};
use super::state::State;
use super::tls::Tls;
use crate::config::{CellFile, ControlFile, GatewayFile};
use crate::failure::{Failure, Of as _};

/// Everything that the files are made from.
pub(crate) struct Layout<'a> {
    pub(crate) state: &'a State,
    pub(crate) secrets: &'a Secrets,
    pub(crate) keys: &'a KeyFiles,
    pub(crate) servers: &'a [Server],
    pub(crate) world: &'a World,
    pub(crate) tls: &'a Tls,
    pub(crate) domain: &'a str,
    pub(crate) port: u16,
    pub(crate) name_grace_seconds: i64,
    pub(crate) move_grace_seconds: i64,
    pub(crate) auto_rollout: bool,
    pub(crate) stock: u32,
}

/// A module's configuration file.
#[derive(Serialize)]
struct ModuleFile {
    gateway_keys: PathBuf,
    cells: Vec<CellAddress>,
    tree_cells: Vec<CellAddress>,
}

impl Layout<'_> {
    /// `https://[label.]domain:port`.
    pub(crate) fn origin(&self, label: &str) -> String {
        let dot = if label.is_empty() { "" } else { "." };
        format!("https://{label}{dot}{}:{}", self.domain, self.port)
    }

    /// The control database's DSN for a login.
    pub(crate) fn registry_dsn(&self, login: &str, password: &str) -> Result<String, Failure> {
        let first = self
            .servers
            .first()
            .ok_or_else(|| Failure::failed("there is no cell"))?;
        Ok(first.dsn(login, password, CONTROL_DATABASE))
    }

    /// The cells with the password of one of a module's logins.
    fn addresses(
        &self,
        passwords: &BTreeMap<ModuleId, String>,
        module: &ModuleId,
    ) -> Result<Vec<CellAddress>, Failure> {
        let password = passwords
            .get(module)
            .ok_or_else(|| Failure::failed(format!("module {module} has no password")))?;
        let address = |server: &Server| CellAddress {
            id: server.id.clone(),
            host: "127.0.0.1".to_owned(),
            port: server.port,
            password: password.clone(),
        };
        Ok(self.servers.iter().map(address).collect())
    }

    /// Writes the control plane's file.
    pub(crate) fn write_control(&self) -> Result<PathBuf, Failure> {
        let file = ControlFile {
            registry_dsn: self.registry_dsn("waangu_control", &self.secrets.control_password)?,
            environment: super::ENVIRONMENT.to_owned(),
            domain: self.domain.to_owned(),
            public_port: self.port,
            name_grace_seconds: self.name_grace_seconds,
            operator_token_sha256: sha256_hex(self.secrets.operator_token.as_bytes()),
            issuer: self.origin("login"),
            directory_key: signing_key(self.state, "keys/directory.p8")?,
            auto_rollout: self.auto_rollout,
            rollouts: RolloutLimits::default(),
            moves: MoveLimits::default(),
            repair_seconds: 3600,
            stock_databases: self.stock,
            stock_schemas: self.stock,
            move_grace_seconds: self.move_grace_seconds,
            packages: self.state.path("packages"),
            key_ring: self.keys.ring.clone(),
            public_keys: self.keys.public.clone(),
            key_grace_seconds: self.keys.grace,
            cells: self
                .servers
                .iter()
                .map(|server| self.cell(server))
                .collect(),
            world: self.world.clone(),
        };
        self.state.write_toml("run/control.toml", &file)
    }

    /// Writes the gateway's file.
    pub(crate) fn write_gateway(
        &self,
        control: SocketAddr,
        modules: &[(ModuleId, SocketAddr)],
    ) -> Result<PathBuf, Failure> {
        let file = GatewayFile {
            domain: self.domain.to_owned(),
            public_port: self.port,
            control,
            registry_dsn: self.registry_dsn("waangu_gateway", &self.secrets.gateway_password)?,
            issuer: self.origin("login"),
            certificate: self.tls.certificate.clone(),
            private_key: self.tls.private_key.clone(),
            key_ring: self.keys.ring.clone(),
            modules: modules.iter().cloned().collect::<BTreeMap<_, _>>(),
        };
        self.state.write_toml("run/gateway.toml", &file)
    }

    /// Writes a module's file: it holds this module's passwords and no other secret.
    pub(crate) fn write_module(&self, module: &ModuleId) -> Result<PathBuf, Failure> {
        let file = ModuleFile {
            gateway_keys: self.keys.public.clone(),
            cells: self.addresses(&self.secrets.modules, module)?,
            tree_cells: self.addresses(&self.secrets.trees, module)?,
        };
        self.state.write_toml(&format!("run/{module}.toml"), &file)
    }

    /// How to start the control plane or the gateway.
    pub(crate) fn role(
        &self,
        name: &str,
        config: &Path,
        listener: Arc<TcpListener>,
    ) -> Result<ChildSpec, Failure> {
        let program = std::env::current_exe().of("this program")?;
        Ok(self.child(name, program, name, config, listener))
    }

    /// How to start a module.
    pub(crate) fn module(
        &self,
        programs: &Programs,
        module: &ModuleId,
        config: &Path,
        listener: Arc<TcpListener>,
    ) -> Result<ChildSpec, Failure> {
        let program = programs.module(module)?.to_owned();
        Ok(self.child(module.as_str(), program, "serve", config, listener))
    }

    fn child(
        &self,
        name: &str,
        program: PathBuf,
        command: &str,
        config: &Path,
        listener: Arc<TcpListener>,
    ) -> ChildSpec {
        let config = config.display().to_string();
        ChildSpec {
            name: name.to_owned(),
            program,
            args: vec![
                command.to_owned(),
                "--supervised".to_owned(),
                "--config".to_owned(),
                config,
            ],
            listener,
            log: self.state.path(&format!("log/{name}.log")),
        }
    }

    fn cell(&self, server: &Server) -> CellFile {
        CellFile {
            id: server.id.clone(),
            host: "127.0.0.1".to_owned(),
            port: server.port,
            user: SUPERUSER.to_owned(),
            password: server.password.clone(),
            logins: self.secrets.modules.clone(),
            trees: self.secrets.trees.clone(),
        }
    }
}
