//! What proves that the host is the one meant: authorities, or one pinned certificate.

use std::sync::Arc;
use std::time::Duration;

use proximity_commands::ports::{HypervisorError, Trust};
use proximity_domain::Port;
use proximity_domain::host::Fingerprint;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::silence::silence;

const PROBE: &str = "TLS handshake";

/// SHA-256 of a certificate's DER bytes.
pub(crate) fn fingerprint(certificate: &[u8]) -> Fingerprint {
    Fingerprint::from_digest(Sha256::digest(certificate).into())
}

/// The TLS settings for a kind of trust.
pub(crate) fn client_config(trust: Trust) -> Result<ClientConfig, Error> {
    match trust {
        Trust::Authorities => {
            let provider = Arc::new(ring::default_provider());
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            Ok(ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth())
        }
        Trust::Pinned(pin) => with_verifier(Some(pin)),
    }
}

fn with_verifier(pin: Option<Fingerprint>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = OneCertificate { pin, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // A resumed session shows no certificate; every connection must prove itself anew.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Accepts exactly one certificate (or, for a probe, whichever is shown), whoever issued it and
/// whenever it ended; the peer still has to sign the handshake with the certificate's key.
#[derive(Debug)]
struct OneCertificate {
    pin: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OneCertificate {
    /// Only the end entity counts: a pinned certificate further up somebody's chain proves nothing.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.pin {
            Some(pin) if pin != fingerprint(end_entity) => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate that an address presents now, its key proven by the handshake's signature.
///
/// Nothing but the handshake is sent: no request, no credential. `within` covers name look-up, TCP
/// and TLS together.
pub async fn probe_fingerprint(
    address: &str,
    port: Port,
    within: Duration,
) -> Result<Fingerprint, HypervisorError> {
    let retryable =
        |reason: String| HypervisorError::Retryable { call: PROBE, reason: reason.into() };
    let permanent =
        |reason: String| HypervisorError::Permanent { call: PROBE, reason: reason.into() };
    let name = ServerName::try_from(address.to_owned())
        .map_err(|_| permanent("the address is neither a name nor an IP address".to_owned()))?;
    let config = with_verifier(None).map_err(|error| permanent(silence(&error, true)))?;
    let handshake = async {
        let socket = TcpStream::connect((address, port.get())).await;
        let socket = socket.map_err(|error| from_io(&error, true))?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
        connected.map_err(|error| from_io(&error, false))
    };
    let stream = match tokio::time::timeout(within, handshake).await {
        Err(_) => return Err(retryable(format!("no TLS handshake within {within:?}"))),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(stream)) => stream,
    };
    let (_, session) = stream.get_ref();
    match session.peer_certificates().and_then(<[_]>::first) {
        Some(certificate) => Ok(fingerprint(certificate)),
        None => Err(permanent("the host presented no certificate".to_owned())),
    }
}

fn from_io(error: &std::io::Error, connecting: bool) -> HypervisorError {
    match certificate_failure(error) {
        Some(reason) => HypervisorError::Certificate { call: PROBE, reason },
        None => {
            HypervisorError::Retryable { call: PROBE, reason: silence(error, connecting).into() }
        }
    }
}

fn refused(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name than the host's address"
        }
        CertificateError::UnknownIssuer => "no authority that is known here signed it",
        CertificateError::Revoked => "it was revoked",
        _ => "it is not one that can be checked",
    }
}

/// Why the peer's certificate was refused, if that is what happened somewhere down the chain.
pub(crate) fn certificate_failure(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
            && let Some(reason) = certificate_failure(inner)
        {
            return Some(reason);
        }
        if let Some(tls) = error.downcast_ref::<Error>() {
            return match tls {
                Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                    Some("its fingerprint is not the pinned one".to_owned())
                }
                Error::InvalidCertificate(CertificateError::BadSignature) => {
                    Some("the handshake was not signed with the certificate's key".to_owned())
                }
                Error::InvalidCertificate(error) => Some(refused(error).to_owned()),
                Error::NoCertificatesPresented => Some("the host presented none".to_owned()),
                _ => None,
            };
        }
        next = error.source();
    }
    None
}
