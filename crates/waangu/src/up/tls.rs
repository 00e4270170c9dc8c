//! The local certificate authority and the gateway's certificate.
//!
//! The CA is made on the first start and may certify names below the development domain only (name
//! constraints, RFC 5280 §4.2.1.10), so that trusting it on a laptop risks nothing else. The leaf is
//! made anew when it has less than a month to live.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use time::{Duration, OffsetDateTime};
use waangu_kernel::Clock;

use super::state::State;
use crate::failure::{Failure, Of as _};

/// Life of the CA.
const CA_LIFE: Duration = Duration::days(3650);

/// Life of a leaf; browsers refuse more than 398 days.
const LEAF_LIFE: Duration = Duration::days(90);

/// A leaf is renewed when it has less than this to live.
const RENEW: Duration = Duration::days(30);

/// Clocks differ a little.
const SKEW: Duration = Duration::hours(1);

/// Files of the gateway's TLS.
#[derive(Debug)]
pub(crate) struct Tls {
    /// The CA's certificate, PEM: for clients.
    pub(crate) ca: PathBuf,
    /// The gateway's certificate, PEM.
    pub(crate) certificate: PathBuf,
    /// Its key, PEM.
    pub(crate) private_key: PathBuf,
}

/// Makes what is missing or about to expire.
pub(crate) fn ensure(state: &State, domain: &str, clock: &dyn Clock) -> Result<Tls, Failure> {
    let now = clock.now();
    let (ca, key) = match (state.read("tls/ca.pem")?, state.read("tls/ca.key")?) {
        (Some(ca), Some(key)) => (ca, key),
        _ => make_ca(state, domain, now)?,
    };
    let tls = Tls {
        ca: state.path("tls/ca.pem"),
        certificate: state.path("tls/gateway.pem"),
        private_key: state.path("tls/gateway.key"),
    };
    let renewed = state.read("tls/gateway.until")?;
    let until = renewed
        .and_then(|text| text.trim().parse::<i64>().ok())
        .unwrap_or(0);
    let fresh = until > (now + RENEW).unix_timestamp();
    if !fresh || !tls.certificate.exists() || !tls.private_key.exists() {
        make_leaf(state, domain, &ca, &key, now)?;
    }
    Ok(tls)
}

fn make_ca(state: &State, domain: &str, now: OffsetDateTime) -> Result<(String, String), Failure> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Waangu 360 local CA ({domain})"),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
        excluded_subtrees: Vec::new(),
    });
    params.not_before = now - SKEW;
    params.not_after = now + CA_LIFE;
    let key = KeyPair::generate().of("CA key")?;
    let certificate = params.self_signed(&key).of("CA certificate")?;
    state.write("tls/ca.key", key.serialize_pem().as_bytes())?;
    state.write("tls/ca.pem", certificate.pem().as_bytes())?;
    // A new CA has signed no leaf yet.
    state.write("tls/gateway.until", b"0\n")?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn make_leaf(
    state: &State,
    domain: &str,
    ca: &str,
    ca_key: &str,
    now: OffsetDateTime,
) -> Result<(), Failure> {
    let ca_key = KeyPair::from_pem(ca_key).of("tls/ca.key")?;
    let issuer = Issuer::from_ca_cert_pem(ca, ca_key).of("tls/ca.pem")?;
    let names = vec![domain.to_owned(), format!("*.{domain}")];
    let mut params = CertificateParams::new(names).of("certificate names")?;
    params.distinguished_name.push(DnType::CommonName, domain);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - SKEW;
    params.not_after = now + LEAF_LIFE;
    let key = KeyPair::generate().of("gateway key")?;
    let certificate = params.signed_by(&key, &issuer).of("gateway certificate")?;
    state.write("tls/gateway.key", key.serialize_pem().as_bytes())?;
    state.write("tls/gateway.pem", certificate.pem().as_bytes())?;
    state.write(
        "tls/gateway.until",
        format!("{}\n", params.not_after.unix_timestamp()).as_bytes(),
    )?;
    Ok(())
}
