//! A module as a process in front of a prepared cell, called as the gateway calls it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use bytes::Bytes;
use command_fds::{CommandFdExt as _, FdMapping};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use waangu_identity::context::CONTEXT_HEADER;
use waangu_identity::proof::Access;
use waangu_identity::{ContextSigner, Jwks, RequestContext, SigningKey};
use waangu_kernel::entitlement::Values;
use waangu_kernel::placement::{Place, Tier};
use waangu_kernel::{Placement, TenantId};
use waangu_tenancy::{CellAddress, HomeState, ModulePackage};

use crate::cell::{Cell, cell};

/// A cell that the module knows and that does not answer.
pub const GONE: &str = "gone-cell";

/// The role that holds every permission of the module.
pub const EVERYTHING: &str = "*";

/// A tenant and where it lives.
pub type Home = (TenantId, Placement);

/// The module in front of a prepared cell.
#[derive(Debug)]
pub struct World {
    /// The cell.
    pub cell: Cell,
    /// What the module says of itself.
    pub package: ModulePackage,
    signer: ContextSigner,
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    /// Killed with the world.
    _process: Child,
    _folder: TempDir,
}

/// One tenant, as a caller with a role sees it.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Where it calls.
    pub world: &'a World,
    /// For whom.
    pub home: &'a Home,
    role: &'a str,
    /// The tenant's flags and limits that are not the manifest's default.
    flags: Option<&'a Values>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: Value,
}

impl World {
    /// Starts the module's program in front of the shared cell.
    ///
    /// # Panics
    /// When it can't be started.
    pub async fn start(program: &str) -> Self {
        Self::start_on(cell().await, program).await
    }

    /// The same in front of another cell.
    ///
    /// # Panics
    /// As [`World::start`].
    pub async fn start_on(cell: Cell, program: &str) -> Self {
        let package = package(program).await;
        let module = &package.manifest.id;
        cell.admit(module).await;
        let key = SigningKey::generate_pkcs8().expect("make a context key");
        let signer = ContextSigner::new(SigningKey::from_pkcs8(&key).expect("read a context key"));
        let folder = tempfile::tempdir().expect("make a folder for the module");
        let config = folder.path().join("module.toml");
        let keys = folder.path().join("keys.json");
        let jwks = serde_json::to_vec(&Jwks {
            keys: vec![signer.public().clone()],
        });
        std::fs::write(&keys, jwks.expect("a key set")).expect("write a key set");
        let tree = cell.tree_address(module);
        // Nobody listens there.
        let gone = CellAddress {
            id: GONE.parse().expect("a cell's id"),
            port: 1,
            ..tree.clone()
        };
        let text = toml::to_string(&json!({
            "gateway_keys": keys,
            "cells": [cell.module_address(module)],
            "tree_cells": [tree, gone],
        }));
        std::fs::write(&config, text.expect("a configuration")).expect("write a configuration");

        let socket = TcpListener::bind("127.0.0.1:0").expect("find a port");
        let base = format!("http://{}", socket.local_addr().expect("know the port"));
        let mut command = std::process::Command::new(program);
        command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env("LISTEN_FDS", "1")
            .stdin(Stdio::null());
        let handed = FdMapping {
            parent_fd: OwnedFd::from(socket),
            child_fd: 3,
        };
        command
            .fd_mappings(vec![handed])
            .expect("hand the socket over");
        let process = Command::from(command).kill_on_drop(true).spawn();
        Self {
            cell,
            package,
            signer,
            client: Client::builder(TokioExecutor::new()).build_http(),
            base,
            _process: process.expect("start the module"),
            _folder: folder,
        }
    }

    /// A tenant that nobody else has, with the module and an open door.
    ///
    /// # Panics
    /// When it can't be made.
    pub async fn tenant(&self, tier: Tier) -> Home {
        let home = self.cell.tenant(tier);
        self.provision(&home).await;
        home
    }

    /// A second tenant beside the first: in the schema tier, in the same database.
    ///
    /// # Panics
    /// As [`World::tenant`].
    pub async fn neighbour(&self, of: &Home) -> Home {
        let mut home = self.cell.tenant(of.1.tier);
        home.1.bucket = of.1.bucket;
        self.provision(&home).await;
        home
    }

    async fn provision(&self, (tenant, placement): &Home) {
        let admin = &self.cell.admin;
        let made = async {
            admin.ensure_place(*tenant, placement).await?;
            admin
                .ensure_module(*tenant, placement, &self.package)
                .await?;
            admin.put_home(*tenant, placement, HomeState::Active).await
        };
        made.await.expect("make a tenant");
    }

    /// Puts a tenant below others, as the reconciler does.
    ///
    /// # Panics
    /// When the cell refuses.
    pub async fn below(&self, home: &Home, ancestors: &[TenantId]) {
        let lineage: Vec<i64> = [home.0]
            .iter()
            .chain(ancestors)
            .map(|id| id.number())
            .collect();
        let set = self.cell.admin.set_lineage(home.0, &home.1, &lineage);
        set.await.expect("set a lineage");
    }

    /// Lets nobody into a tenant's own database any more.
    ///
    /// # Panics
    /// When the cell refuses.
    pub async fn stop(&self, home: &Home) {
        let admin = crate::connect(&self.cell.superuser_dsn("postgres")).await;
        let database = home.1.database(home.0);
        let sql = format!(
            "alter database {database} with connection limit 0;
             select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'"
        );
        let admin = admin.expect("reach the cell");
        admin.batch_execute(&sql).await.expect("close a database");
    }

    /// Somebody with a role of the module.
    pub fn caller<'a>(&'a self, home: &'a Home, role: &'a str) -> Caller<'a> {
        Caller {
            world: self,
            home,
            role,
            flags: None,
        }
    }

    /// The header's value for a context.
    ///
    /// # Panics
    /// When it can't be signed.
    pub fn sign(&self, context: RequestContext) -> String {
        self.signer.sign(context).expect("sign a context")
    }

    /// Sends a request with any headers.
    ///
    /// # Panics
    /// When there is no answer, or one that is neither JSON nor a problem document.
    pub async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes)).expect("a request");
        let response = self.client.request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a whole answer").to_bytes();
        let text = |name: &str| {
            let value = head.headers.get(name)?;
            Some(value.to_str().expect("a plain header").to_owned())
        };
        let kind = match head.status {
            StatusCode::NO_CONTENT => None,
            status if status.is_success() => Some("application/json"),
            _ => Some("application/problem+json"),
        };
        assert_eq!(text("content-type").as_deref(), kind, "{body:?}");
        Answer {
            status: head.status,
            location: text("location"),
            body: match kind {
                Some(_) => serde_json::from_slice(&body).expect("JSON"),
                None => Value::Null,
            },
        }
    }
}

impl<'a> Caller<'a> {
    /// The same tenant, seen by somebody else.
    #[must_use]
    pub fn with_role(self, role: &'a str) -> Self {
        Self { role, ..self }
    }

    /// The same tenant with flags and limits that are not the manifest's default.
    #[must_use]
    pub fn with_flags(self, flags: &'a Values) -> Self {
        Self {
            flags: Some(flags),
            ..self
        }
    }

    /// A context with the role's permissions, as the gateway would make it.
    pub fn context(self, access: Access) -> RequestContext {
        let manifest = &self.world.package.manifest;
        let (tenant, placement) = self.home;
        let key = &self.world.cell.key;
        let mut context = crate::context(*tenant, placement, &manifest.id, access, key);
        context.permissions = if self.role == EVERYTHING {
            manifest.permissions.keys().cloned().collect()
        } else {
            let role = format!("{}.{}", manifest.id, self.role);
            let permissions = manifest.role_permissions(&role);
            permissions.unwrap_or_default().to_vec()
        };
        context.flags = self.flags.cloned().unwrap_or_default();
        context
    }

    /// Sends a request with a context that suits its method, and perhaps an `Idempotency-Key`.
    pub async fn send(
        self,
        method: &Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let access = if *method == Method::GET {
            Access::Read
        } else {
            Access::Write
        };
        let context = self.world.sign(self.context(access));
        let mut headers = vec![(CONTEXT_HEADER, context.as_str())];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        self.world.send(method, path, &headers, body).await
    }

    /// `GET`.
    pub async fn get(self, path: &str) -> Answer {
        self.send(&Method::GET, path, None, None).await
    }

    /// `GET` of the whole subtree, with the places that the gateway knows.
    pub async fn get_subtree(self, path: &str, places: &[Place]) -> Answer {
        let mut context = self.context(Access::Tree);
        context.places = places.to_vec();
        let context = self.world.sign(context);
        let headers = [(CONTEXT_HEADER, context.as_str())];
        self.world.send(&Method::GET, path, &headers, None).await
    }

    /// `PATCH`.
    pub async fn patch(self, path: &str, body: &Value) -> Answer {
        self.send(&Method::PATCH, path, None, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(self, path: &str) -> Answer {
        self.send(&Method::DELETE, path, None, None).await
    }

    /// `POST`.
    pub async fn post(self, path: &str, body: &Value) -> Answer {
        self.send(&Method::POST, path, None, Some(body)).await
    }

    /// `POST` with an `Idempotency-Key`.
    pub async fn post_with_key(self, path: &str, key: &str, body: &Value) -> Answer {
        self.send(&Method::POST, path, Some(key), Some(body)).await
    }

    /// All pages of a list.
    ///
    /// # Panics
    /// When a page is refused or too long.
    pub async fn all(self, path: &str, limit: usize) -> Vec<Value> {
        let glue = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("{path}{glue}limit={limit}{after}")).await;
            assert_eq!(page.status, StatusCode::OK, "{page:?}");
            let found = page.body.get("items").and_then(Value::as_array);
            let found = found.expect("a list has items");
            assert!(found.len() <= limit);
            items.extend(found.iter().cloned());
            match page.body.get("next").and_then(Value::as_str) {
                Some(next) => after = format!("&after={next}"),
                None => return items,
            }
        }
    }
}

impl Answer {
    /// The id of what was created.
    ///
    /// # Panics
    /// When nothing was.
    #[track_caller]
    pub fn id(&self) -> String {
        assert_eq!(self.status, StatusCode::CREATED, "{self:?}");
        let id = self.body.get("id").and_then(Value::as_str);
        id.expect("what is created has an id").to_owned()
    }

    /// Asserts a refusal: status, code, and the field if one is to blame, with a space between.
    ///
    /// # Panics
    /// When it is another answer.
    #[track_caller]
    pub fn refused(&self, expected: &str) {
        let member = |name: &str| self.body.get(name).and_then(Value::as_str);
        let code = member("code").unwrap_or_default();
        let mut found = format!("{} {code}", self.status.as_u16());
        if let Some(field) = member("field") {
            found = format!("{found} {field}");
        }
        assert_eq!(found, expected, "{self:?}");
    }
}

/// What the module says of itself.
pub(crate) async fn package(program: &str) -> ModulePackage {
    let output = Command::new(program).arg("package").output().await;
    let output = output.expect("ask the module for its package");
    serde_json::from_slice(&output.stdout).expect("a package")
}
