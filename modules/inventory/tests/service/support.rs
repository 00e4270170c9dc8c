//! What the tests share: the module's process, tenants, and a client.

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
use tokio::sync::OnceCell;
use waangu_identity::context::CONTEXT_HEADER;
use waangu_identity::proof::Access;
use waangu_identity::{ContextSigner, SigningKey};
use waangu_kernel::placement::Tier;
use waangu_kernel::{ModuleId, Placement, TenantId};
use waangu_tenancy::{CellAddress, HomeState, LoginSecret, ModulePackage};
use waangu_testkit::Cell;

const PROGRAM: &str = env!("CARGO_BIN_EXE_waangu-inventory");
const PASSWORD: &str = "of-inventory";
const TREE_PASSWORD: &str = "of-inventory-tree";

/// The module in front of a prepared cell.
pub(crate) struct World {
    cell: Cell,
    package: ModulePackage,
    signer: ContextSigner,
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    /// Killed with the world.
    _process: Child,
    _folder: TempDir,
}

/// One tenant, as a caller with a role sees it.
#[derive(Clone, Copy)]
pub(crate) struct Shop<'a> {
    world: &'a World,
    tenant: TenantId,
    placement: &'a Placement,
    role: &'a str,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) location: Option<String>,
    pub(crate) body: Value,
}

impl World {
    pub(crate) async fn new() -> Self {
        let cell = waangu_testkit::cell().await;
        let package = package().await;
        prepare(&cell, &package.manifest.id).await;
        let signer = ContextSigner::new(
            SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap(),
        );
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("inventory.toml");
        let address = CellAddress {
            id: cell.admin.id().clone(),
            host: "127.0.0.1".to_owned(),
            port: waangu_testkit::cluster().await.port(),
            password: PASSWORD.to_owned(),
        };
        let text = toml::to_string(&json!({
            "gateway_keys": [signer.public()],
            "cells": [address],
        }));
        std::fs::write(&config, text.unwrap()).unwrap();

        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", socket.local_addr().unwrap());
        let mut command = std::process::Command::new(PROGRAM);
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
        command.fd_mappings(vec![handed]).unwrap();
        let process = Command::from(command).kill_on_drop(true).spawn().unwrap();
        Self {
            cell,
            package,
            signer,
            client: Client::builder(TokioExecutor::new()).build_http(),
            base,
            _process: process,
            _folder: folder,
        }
    }

    /// A tenant that nobody else has, with the module and an open door.
    pub(crate) async fn tenant(&self, tier: Tier) -> (TenantId, Placement) {
        let (tenant, placement) = self.cell.tenant(tier);
        let admin = &self.cell.admin;
        admin.ensure_place(tenant, &placement).await.unwrap();
        admin
            .ensure_module(tenant, &placement, &self.package)
            .await
            .unwrap();
        admin
            .put_home(tenant, &placement, HomeState::Active)
            .await
            .unwrap();
        (tenant, placement)
    }

    pub(crate) fn shop<'a>(&'a self, home: &'a (TenantId, Placement), role: &'a str) -> Shop<'a> {
        Shop {
            world: self,
            tenant: home.0,
            placement: &home.1,
            role,
        }
    }

    /// Sends a request with any headers.
    pub(crate) async fn send(
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
        let request = request.body(Full::new(bytes)).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = |name: &str| {
            let value = head.headers.get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let kind = if head.status.is_success() {
            "application/json"
        } else {
            "application/problem+json"
        };
        assert_eq!(text("content-type").as_deref(), Some(kind), "{body:?}");
        Answer {
            status: head.status,
            location: text("location"),
            body: serde_json::from_slice(&body).unwrap(),
        }
    }
}

impl<'a> Shop<'a> {
    /// The same tenant, seen by somebody else.
    pub(crate) fn with_role(self, role: &'a str) -> Self {
        Self { role, ..self }
    }

    fn context(self, access: Access) -> String {
        let manifest = &self.world.package.manifest;
        let key = &self.world.cell.key;
        let mut context =
            waangu_testkit::context(self.tenant, self.placement, &manifest.id, access, key);
        let role = format!("inventory.{}", self.role);
        context.permissions = manifest
            .role_permissions(&role)
            .unwrap_or_default()
            .to_vec();
        self.world.signer.sign(context).unwrap()
    }

    pub(crate) async fn get(self, path: &str) -> Answer {
        let context = self.context(Access::Read);
        let headers = [(CONTEXT_HEADER, context.as_str())];
        self.world.send(&Method::GET, path, &headers, None).await
    }

    pub(crate) async fn patch(self, path: &str, body: &Value) -> Answer {
        let context = self.context(Access::Write);
        let headers = [(CONTEXT_HEADER, context.as_str())];
        let world = self.world;
        world.send(&Method::PATCH, path, &headers, Some(body)).await
    }

    pub(crate) async fn post(self, path: &str, body: &Value) -> Answer {
        let context = self.context(Access::Write);
        let headers = [(CONTEXT_HEADER, context.as_str())];
        self.world
            .send(&Method::POST, path, &headers, Some(body))
            .await
    }

    pub(crate) async fn post_with_key(self, path: &str, key: &str, body: &Value) -> Answer {
        let context = self.context(Access::Write);
        let headers = [(CONTEXT_HEADER, context.as_str()), ("idempotency-key", key)];
        self.world
            .send(&Method::POST, path, &headers, Some(body))
            .await
    }

    pub(crate) async fn product(self, sku: &str) -> String {
        let body = json!({ "sku": sku, "name": format!("Product {sku}") });
        self.post("/products", &body).await.id()
    }

    pub(crate) async fn place(self, code: &str) -> String {
        let body = json!({ "code": code, "name": format!("Place {code}"), "kind": "store" });
        self.post("/places", &body).await.id()
    }

    /// Brings stock in from outside.
    pub(crate) async fn receive(self, product: &str, place: &str, quantity: i64) {
        let body = json!({
            "product": product, "to": place, "quantity": quantity, "reason": "receipt",
        });
        let answer = self.post("/moves", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }

    pub(crate) async fn on_hand(self, product: &str, place: &str) -> Option<i64> {
        let path = format!("/stock?product={product}&place={place}");
        let answer = self.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body["items"][0]["on_hand"].as_i64()
    }

    /// All pages of a list.
    pub(crate) async fn all(self, path: &str, limit: usize) -> Vec<Value> {
        let glue = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("{path}{glue}limit={limit}{after}")).await;
            assert_eq!(page.status, StatusCode::OK, "{page:?}");
            let found = page.body["items"].as_array().unwrap();
            assert!(found.len() <= limit);
            items.extend(found.iter().cloned());
            match page.body["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return items,
            }
        }
    }

    /// The levels must be what the journal adds up to, read past the module as superuser.
    pub(crate) async fn check_books(self) {
        let database = self.placement.database(self.tenant);
        let dsn = self.world.cell.superuser_dsn(&database);
        let client = waangu_testkit::connect(&dsn).await.unwrap();
        let module = &self.world.package.manifest.id;
        let schema = self.placement.schema(self.tenant, module);
        let sql = format!(
            "with line as (
                 select product_id, to_place as place_id, quantity as amount
                   from {schema}.stock_move where tenant_id = $1 and to_place is not null
                  union all
                 select product_id, from_place, -quantity
                   from {schema}.stock_move where tenant_id = $1 and from_place is not null
             ), book as (
                 select product_id, place_id, sum(amount) as amount from line group by 1, 2
             )
             select count(*)
               from book b
               full join (select * from {schema}.stock_level where tenant_id = $1) l
                    using (product_id, place_id)
              where coalesce(b.amount, 0) <> coalesce(l.on_hand, 0)"
        );
        let row = client.query_one(&sql, &[&self.tenant.number()]).await;
        let wrong: i64 = row.unwrap().get(0);
        assert_eq!(wrong, 0, "levels differ from the journal");
    }
}

impl Answer {
    pub(crate) fn id(&self) -> String {
        assert_eq!(self.status, StatusCode::CREATED, "{self:?}");
        self.body["id"].as_str().unwrap().to_owned()
    }

    /// Asserts a refusal: status, code, and the field if one is to blame, with a space between.
    #[track_caller]
    pub(crate) fn refused(&self, expected: &str) {
        let mut found = format!("{} ", self.status.as_u16());
        found += self.body["code"].as_str().unwrap_or_default();
        if let Some(field) = self.body["field"].as_str() {
            found = format!("{found} {field}");
        }
        assert_eq!(found, expected, "{self:?}");
    }
}

/// What the module says of itself.
async fn package() -> ModulePackage {
    let output = Command::new(PROGRAM).arg("package").output().await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Gives the module its login, once.
async fn prepare(cell: &Cell, module: &ModuleId) {
    static PREPARED: OnceCell<()> = OnceCell::const_new();
    let prepare = async || {
        let login = LoginSecret {
            module: module.clone(),
            password: PASSWORD.to_owned(),
            tree_password: TREE_PASSWORD.to_owned(),
        };
        let keys = [cell.key.clone()];
        cell.admin.prepare(&[login], &keys).await.unwrap();
    };
    PREPARED.get_or_init(prepare).await;
}
