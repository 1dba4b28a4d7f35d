//! The host's certificates: its own authority, its node certificate, and the ways a peer can present a wrong one.

use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring::{default_provider, sign::any_ecdsa_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use crate::Error;

/// Which certificate the host shows from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presented {
    /// The node certificate that was made at the start.
    Original,
    /// A new node certificate of the same authority, as after a renewal.
    Renewed,
    /// A certificate of another authority, as an impostor would show.
    Foreign,
    /// The node certificate's key in a certificate that ended yesterday; its fingerprint differs.
    Expired,
    /// An impostor's certificate with the original appended to the chain.
    OriginalBehindForeign,
    /// The original certificate without its key: the handshake's signature does not fit.
    StolenCertificate,
}

/// The SHA-256 of a certificate as Proxmox shows it: upper-case hex, colon separated.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    let digest = Sha256::digest(der);
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "PVE Cluster Manager CA");
        // An installation makes its authority's name unique by a UUID.
        let unique = crate::auth::random_secret();
        params.distinguished_name.push(DnType::OrganizationalUnitName, unique);
        params.not_before = OffsetDateTime::now_utc() - Duration::days(30);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(3650);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { params, key, pem })
    }

    fn leaf(
        &self,
        names: &[String],
        key: &KeyPair,
        ended: bool,
    ) -> Result<CertificateDer<'static>, Error> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::OrganizationName, "Proxmox Virtual Environment");
        if let Some(name) = names.last() {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::days(30);
        params.not_after = if ended { now - Duration::days(1) } else { now + Duration::days(730) };
        let issuer = Issuer::from_params(&self.params, &self.key);
        Ok(params.signed_by(key, &issuer)?.der().clone())
    }
}

/// Holds the certificates and answers each handshake with the one that is presented.
pub(crate) struct Certificates {
    authority: Authority,
    foreign: Authority,
    names: Vec<String>,
    original: (CertificateDer<'static>, KeyPair),
    shown: Mutex<(Arc<CertifiedKey>, String)>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("fingerprint", &self.fingerprint()).finish()
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
) -> Result<Arc<CertifiedKey>, Error> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&der)?)))
}

impl Certificates {
    pub(crate) fn new(nodes: &[String]) -> Result<Arc<Self>, Error> {
        let authority = Authority::new("Proxmox Virtual Environment")?;
        let foreign = Authority::new("Somebody Else")?;
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(nodes.iter().rev().cloned());
        let key = KeyPair::generate()?;
        let leaf = authority.leaf(&names, &key, false)?;
        let shown = (certified(vec![leaf.clone()], &key)?, fingerprint(&leaf));
        let original = (leaf, key);
        Ok(Arc::new(Self { authority, foreign, names, original, shown: Mutex::new(shown) }))
    }

    pub(crate) fn ca_pem(&self) -> String {
        self.authority.pem.clone()
    }

    /// The fingerprint of the leaf that handshakes show now.
    pub(crate) fn fingerprint(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    pub(crate) fn present(&self, what: Presented) -> Result<String, Error> {
        let (leaf, key) = &self.original;
        let fresh = KeyPair::generate()?;
        let (chain, signer) = match what {
            Presented::Original => (vec![leaf.clone()], key),
            Presented::Renewed => (vec![self.authority.leaf(&self.names, &fresh, false)?], &fresh),
            Presented::Foreign => (vec![self.foreign.leaf(&self.names, &fresh, false)?], &fresh),
            Presented::Expired => (vec![self.authority.leaf(&self.names, key, true)?], key),
            Presented::OriginalBehindForeign => {
                (vec![self.foreign.leaf(&self.names, &fresh, false)?, leaf.clone()], &fresh)
            }
            Presented::StolenCertificate => (vec![leaf.clone()], &fresh),
        };
        let shown = fingerprint(&chain[0]);
        let mut current = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        *current = (certified(chain, signer)?, shown.clone());
        Ok(shown)
    }

    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        // No resumption: every connection has to show the certificate that is presented now.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.lock().unwrap_or_else(PoisonError::into_inner).0.clone())
    }
}
