//! A whole small world: certificate, directory key, module, control plane, gateway, three tenants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waangu_gateway::{Config, Edge, Keys, Limits};
use waangu_identity::{
    AccessClaims, ContextKey, ContextSigner, ContextVerifier, PublicKey, SigningKey, SigningKeys,
    TokenIssuer,
};
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Clock as _, ModuleId, Placement, SystemClock, TenantId, Tier, UserId};
use waangu_process::Watched;
use waangu_registry::{RouteChange, StoredModule, TenantRoute};

use crate::client::{Client, Got};
use crate::upstream::{self, Seen};

pub(crate) const DOMAIN: &str = "waangu.localhost";
pub(crate) const ISSUER: &str = "https://login.waangu.localhost:8443";

pub(crate) const MANIFEST: &str = r#"
    id = "inventory"
    version = "0.1.0"
    title = { en = "Inventory" }
    routes = [
      { method = "GET", path = "/", permission = "inventory:product.read" },
      { method = "GET", path = "/products", permission = "inventory:product.read" },
      { method = "POST", path = "/products", permission = "inventory:product.write" },
      { method = "GET", path = "/products/{id}", permission = "inventory:product.read" },
      { method = "PUT", path = "/products/{key}", permission = "inventory:product.write" },
      { method = "GET", path = "/big", permission = "inventory:product.read" },
      { method = "GET", path = "/slow", permission = "inventory:product.read" },
      { method = "POST", path = "/deaf", permission = "inventory:product.write" },
      { method = "GET", path = "/all", permission = "inventory:all.read", scope = "subtree" },
    ]
    [permissions]
    "inventory:product.read" = "See products"
    "inventory:product.write" = "Change products"
    "inventory:all.read" = "See the products of all below"
    [roles]
    viewer = ["inventory:product.read"]
    keeper = ["inventory:product.read", "inventory:product.write"]
"#;

/// People of the tenants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct People {
    /// `acme`'s administrator.
    pub(crate) admin: UserId,
    /// `acme`'s viewer.
    pub(crate) viewer: UserId,
    /// Of `acme`, without a role.
    pub(crate) guest: UserId,
    /// `beta`'s administrator.
    pub(crate) other: UserId,
}

pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) edge: Arc<Edge>,
    pub(crate) people: People,
    pub(crate) issuer: TokenIssuer,
    pub(crate) published: Arc<Mutex<Option<PublicKey>>>,
    pub(crate) module_seen: Arc<Seen>,
    pub(crate) control_seen: Arc<Seen>,
    pub(crate) module_address: SocketAddr,
    pub(crate) module_stop: CancellationToken,
    pub(crate) verifier: Arc<ContextVerifier>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) config: Config,
    pub(crate) tls: Arc<rustls::ServerConfig>,
    context_key: Vec<u8>,
    upstream_stop: CancellationToken,
    gateway: TaskTracker,
}

pub(crate) fn signing_key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap()
}

fn context_signer(pkcs8: &[u8]) -> ContextSigner {
    ContextSigner::new(SigningKey::from_pkcs8(pkcs8).unwrap())
}

fn signing(context: ContextSigner) -> Watched<SigningKeys> {
    Watched::fixed(SigningKeys {
        context,
        proof: ContextKey::new(7, [9; 32]),
    })
}

pub(crate) fn route(id: i64, slug: &str, grants: &[(UserId, &str)]) -> TenantRoute {
    TenantRoute {
        id: TenantId::new(id).unwrap(),
        slug: slug.parse().unwrap(),
        active: true,
        parent: None,
        placement: Placement {
            cell: "cell-1".parse().unwrap(),
            tier: Tier::Shared,
            bucket: 0,
            epoch: 3,
        },
        heading: None,
        modules: vec!["inventory".parse().unwrap()],
        grants: grants
            .iter()
            .map(|(user, role)| (*user, vec![role.parse().unwrap()]))
            .collect::<HashMap<_, _>>(),
        plan: None,
        profile: None,
        own: None,
    }
}

pub(crate) fn put(route: TenantRoute) -> RouteChange {
    RouteChange::Put(Box::new(route))
}

/// A certificate for the domain and the names under it.
pub(crate) fn tls() -> (Arc<rustls::ServerConfig>, Arc<rustls::RootCertStore>) {
    let names = vec![DOMAIN.to_owned(), format!("*.{DOMAIN}")];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    (Arc::new(config), Arc::new(roots))
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_limits| {}).await
    }

    /// A stage with other limits; its snapshot is loaded.
    pub(crate) async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let stage = Self::bare(change).await;
        stage.load();
        stage
    }

    /// A stage whose gateway knows nothing yet.
    pub(crate) async fn bare(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let (tls, roots) = tls();
        let context_key = SigningKey::generate_pkcs8().unwrap();
        let context = context_signer(&context_key);
        let inventory: ModuleId = "inventory".parse().unwrap();
        let verifier = Arc::new(ContextVerifier::new(
            &inventory,
            &[context.public().clone()],
        ));
        let issuer = TokenIssuer::new(signing_key());
        let published = Arc::new(Mutex::new(issuer.jwks().keys.pop()));
        let tasks = TaskTracker::new();
        let upstream_stop = CancellationToken::new();
        let module_stop = upstream_stop.child_token();
        let (module_seen, control_seen) = (Arc::<Seen>::default(), Arc::<Seen>::default());

        let (listener, module_address) = upstream::listen().await;
        serve_module(listener, &tasks, &module_stop, &verifier, &module_seen);
        let (listener, control) = upstream::listen().await;
        let (keys, seen) = (Arc::clone(&published), Arc::clone(&control_seen));
        upstream::serve(listener, &tasks, &upstream_stop, move |request| {
            upstream::control(request, Arc::clone(&keys), Arc::clone(&seen))
        });

        let config = Config {
            domain: DOMAIN.to_owned(),
            public_port: 8443,
            control,
            modules: HashMap::from([(inventory, module_address)]),
            registry_dsn: String::new(),
            issuer: ISSUER.to_owned(),
            jwks_url: format!("http://{control}/jwks"),
            limits,
        };
        let keys = Keys {
            tls: Arc::clone(&tls),
            signing: signing(context),
        };
        let edge = Arc::new(Edge::new(config.clone(), keys, Arc::new(SystemClock)).unwrap());
        let (listener, address) = upstream::listen().await;
        let shutdown = CancellationToken::new();
        let gateway = TaskTracker::new();
        gateway.spawn(Arc::clone(&edge).run(Arc::clone(&tls), listener, shutdown.clone()));
        gateway.close();
        Self {
            client: Client {
                address,
                roots,
                tasks: tasks.clone(),
            },
            edge,
            people: People {
                admin: UserId::generate(),
                viewer: UserId::generate(),
                guest: UserId::generate(),
                other: UserId::generate(),
            },
            issuer,
            published,
            module_seen,
            control_seen,
            module_address,
            module_stop,
            verifier,
            tasks,
            shutdown,
            config,
            tls,
            context_key,
            upstream_stop,
            gateway,
        }
    }

    /// Gives the gateway its tenants and its module.
    pub(crate) fn load(&self) {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let bare = MANIFEST.replace("inventory", "ledger");
        let off = Manifest::parse(&bare).unwrap();
        let modules = [manifest, off].map(|manifest| StoredModule { manifest });
        let snapshot = self.edge.snapshot();
        snapshot.install(&modules);
        let mut asleep = route(3, "asleep", &[(self.people.admin, "tenant-admin")]);
        asleep.active = false;
        snapshot.replace(vec![put(self.acme()), put(self.beta()), put(asleep)]);
    }

    pub(crate) fn acme(&self) -> TenantRoute {
        let People { admin, viewer, .. } = self.people;
        route(
            1,
            "acme",
            &[(admin, "tenant-admin"), (viewer, "inventory.viewer")],
        )
    }

    pub(crate) fn beta(&self) -> TenantRoute {
        route(2, "beta", &[(self.people.other, "tenant-admin")])
    }

    /// The gateway's keys once more, for a second gateway in front of the same module.
    pub(crate) fn keys(&self) -> Keys {
        Keys {
            tls: Arc::clone(&self.tls),
            signing: signing(context_signer(&self.context_key)),
        }
    }

    /// Starts the module anew on its old address.
    pub(crate) async fn restart_module(&self) {
        let listener = TcpListener::bind(self.module_address).await.unwrap();
        let stop = self.upstream_stop.child_token();
        serve_module(
            listener,
            &self.tasks,
            &stop,
            &self.verifier,
            &self.module_seen,
        );
    }

    pub(crate) fn token(&self, user: UserId, tenant: &str) -> String {
        self.issuer.issue(&claims(user, tenant)).unwrap()
    }

    /// A request of `acme`'s administrator to `acme`'s address.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let token = self.token(self.people.admin, "acme");
        ask(method, "acme", path).header("authorization", format!("Bearer {token}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.client.send(empty(self.request("GET", path))).await
    }

    /// A request with a token to any host.
    pub(crate) async fn as_user(&self, token: &str, method: &str, host: &str, path: &str) -> Got {
        let request = ask(method, host, path).header("authorization", format!("Bearer {token}"));
        self.client.send(empty(request)).await
    }

    /// Ends the gateway; fails if something of it goes on.
    pub(crate) async fn drain(&self) {
        self.shutdown.cancel();
        let limit = Duration::from_secs(15);
        tokio::time::timeout(limit, self.gateway.wait())
            .await
            .unwrap();
    }

    /// Ends everything; fails if something goes on.
    pub(crate) async fn end(self) {
        self.drain().await;
        let limit = Duration::from_secs(15);
        self.upstream_stop.cancel();
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait())
            .await
            .unwrap();
    }
}

fn serve_module(
    listener: TcpListener,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    verifier: &Arc<ContextVerifier>,
    seen: &Arc<Seen>,
) {
    let (verifier, seen) = (Arc::clone(verifier), Arc::clone(seen));
    upstream::serve(listener, tasks, stop, move |request| {
        upstream::module(request, Arc::clone(&verifier), Arc::clone(&seen))
    });
}

/// What a good token says.
pub(crate) fn claims(user: UserId, tenant: &str) -> AccessClaims {
    let now = SystemClock.unix_seconds();
    AccessClaims {
        iss: ISSUER.to_owned(),
        sub: user.to_string(),
        aud: "waangu".to_owned(),
        exp: now + 300,
        iat: now,
        nbf: None,
        tenant: tenant.to_owned(),
        preferred_username: None,
        jti: None,
    }
}

/// A request without a token; an empty host name means the domain itself.
pub(crate) fn ask(method: &str, host: &str, path: &str) -> http::request::Builder {
    let host = match host {
        "" => format!("{DOMAIN}:8443"),
        label => format!("{label}.{DOMAIN}:8443"),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
}

pub(crate) fn empty(builder: http::request::Builder) -> Request<Full<Bytes>> {
    builder.body(Full::default()).unwrap()
}
