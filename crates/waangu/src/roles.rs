//! The long-running processes: parse the configuration, wire, serve, drain.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use waangu_gateway::{Keys, Limits};
use waangu_identity::KeyRing;
use waangu_identity::keys::KeyError;
use waangu_kernel::SystemClock;
use waangu_process::{ServeOptions, Watched};

use crate::config::{self, ControlFile, GatewayFile};
use crate::failure::{Failure, Of as _};

/// Runs the control plane.
pub(crate) async fn control(options: &ServeOptions) -> Result<(), Failure> {
    waangu_process::log("info");
    let mut config = config::read::<ControlFile>(&options.config)?.into_config()?;
    let listener = options.listener().await?;
    options
        .run(async |stop| {
            waangu_control::prepare(&mut config).await?;
            tracing::info!(cells = config.cells.len(), "control plane ready");
            Ok(waangu_control::serve(config, listener, Arc::new(SystemClock), stop).await?)
        })
        .await
}

/// Runs the gateway.
pub(crate) async fn gateway(options: &ServeOptions) -> Result<(), Failure> {
    waangu_process::log("info");
    let file: GatewayFile = config::read(&options.config)?;
    let listener = options.listener().await?;
    let signing = |bytes: &[u8]| KeyRing::from_json(bytes)?.signing();
    let signing = Watched::open(&file.key_ring, move |bytes| {
        signing(bytes).map_err(|error: KeyError| error.to_string())
    });
    let keys = Keys {
        tls: Arc::new(tls(&file)?),
        signing: signing?,
    };
    let config = waangu_gateway::Config {
        jwks_url: format!("http://{}/login/jwks", file.control),
        domain: file.domain,
        public_port: file.public_port,
        control: file.control,
        modules: file.modules.into_iter().collect(),
        registry_dsn: file.registry_dsn,
        issuer: file.issuer,
        limits: Limits::default(),
    };
    let clock = Arc::new(SystemClock);
    options
        .run(async |stop| Ok(waangu_gateway::serve(config, keys, listener, clock, stop).await?))
        .await
}

fn tls(file: &GatewayFile) -> Result<rustls::ServerConfig, Failure> {
    let chain = CertificateDer::pem_file_iter(&file.certificate)
        .of(file.certificate.display())?
        .collect::<Result<Vec<_>, _>>()
        .of(file.certificate.display())?;
    let key = PrivateKeyDer::from_pem_file(&file.private_key).of(file.private_key.display())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .of("TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .of("TLS")?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
