//! Where requests go: addresses, resolved once, and trust.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::oneshot;

use super::spec::{Identity, LoadSpec, TlsSpec};
use super::url::OriginName;
use super::wire::Protocol;

/// The time for resolving one name.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// Why an origin cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The name has no address.
    #[error("cannot resolve {0}: {1}")]
    Resolve(String, String),
    /// The resolver did not answer.
    #[error("resolving {0} took more than 5 s")]
    ResolveTimeout(String),
    /// The given CA has no readable certificate.
    #[error("the CA is no PEM with certificates: {0}")]
    Ca(String),
    /// Not a name that a certificate could have.
    #[error("{0:?} is no server name")]
    ServerName(String),
    /// The client's certificate or key cannot be read.
    #[error("the client's {0}: {1}")]
    Identity(&'static str, String),
    /// A path that no Unix socket can have.
    #[error(
        "a Unix socket's path has at most 107 bytes; that of {0} has more: go by a shorter one, such as a link"
    )]
    Path(String),
    /// Datagrams over a Unix socket.
    #[error(
        "a Unix socket can be connected to for http, https, grpc, grpcs, tcp and tls, not for udp and dns"
    )]
    Datagrams,
    /// A source address that cannot be used.
    #[error("cannot connect from {0}: {1}; is it an address of this machine?")]
    Source(IpAddr, String),
    /// No source address is of the target's family.
    #[error("none of the source addresses can reach {0}: they are of another family")]
    Sources(String),
    /// The TLS library refused the settings.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// A place to connect to.
pub(super) struct Origin {
    pub(super) protocol: Protocol,
    pub(super) place: Place,
    /// Where connections come from; the kernel's choice if empty.
    pub(super) sources: Vec<IpAddr>,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// What is connected to.
pub(super) enum Place {
    /// At least one.
    Addresses(Vec<SocketAddr>),
    Unix(PathBuf),
}

/// Resolves and prepares all origins of a load.
pub(super) async fn prepare(names: &[OriginName], spec: &LoadSpec) -> Result<Vec<Origin>, OriginError> {
    let tls = &spec.tls;
    for source in &spec.sources {
        let tried = std::net::UdpSocket::bind((*source, 0));
        tried.map_err(|error| OriginError::Source(*source, error.to_string()))?;
    }
    let mut origins = Vec::new();
    for name in names {
        let place = match &spec.unix {
            Some(_) if name.protocol.datagrams() => return Err(OriginError::Datagrams),
            Some(path) if path.as_os_str().len() > 107 => {
                return Err(OriginError::Path(path.display().to_string()));
            }
            Some(path) => Place::Unix(path.clone()),
            None => Place::Addresses(reachable(name, &spec.sources).await?),
        };
        let secure = if name.tls {
            let asked = tls.server_name.as_ref().unwrap_or(&name.host);
            let server = ServerName::try_from(asked.clone());
            let server = server.map_err(|_| OriginError::ServerName(asked.clone()))?;
            Some((Arc::new(config(tls, name.protocol)?), server))
        } else {
            None
        };
        let sources = spec.sources.clone();
        origins.push(Origin { protocol: name.protocol, place, sources, tls: secure });
    }
    Ok(origins)
}

/// The addresses of a host; if there are source addresses, those of their families.
async fn reachable(name: &OriginName, sources: &[IpAddr]) -> Result<Vec<SocketAddr>, OriginError> {
    let mut addresses = resolve(&name.host, name.port).await?;
    if !sources.is_empty() {
        addresses.retain(|address| sources.iter().any(|source| source.is_ipv4() == address.is_ipv4()));
        if addresses.is_empty() {
            return Err(OriginError::Sources(name.host.clone()));
        }
    }
    Ok(addresses)
}

/// All addresses of a host, by the system's resolver, in a thread of its own since it blocks.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, OriginError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let fail = |why: String| OriginError::Resolve(host.to_owned(), why);
    let (answer, answered) = oneshot::channel();
    let asked = (host.to_owned(), port);
    std::thread::Builder::new()
        .name("load-resolve".to_owned())
        .spawn(move || {
            // Nobody waits any more if the deadline has passed.
            let _ = answer.send(asked.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        })
        .map_err(|e| fail(e.to_string()))?;
    let addresses = tokio::time::timeout(RESOLVE_WITHIN, answered)
        .await
        .map_err(|_| OriginError::ResolveTimeout(host.to_owned()))?
        .map_err(|_| fail("the resolver failed".to_owned()))?
        .map_err(|e| fail(e.to_string()))?;
    if addresses.is_empty() { Err(fail("it has no address".to_owned())) } else { Ok(addresses) }
}

pub(super) fn config(spec: &TlsSpec, protocol: Protocol) -> Result<ClientConfig, OriginError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| OriginError::Tls(e.to_string()))?;
    let builder = if spec.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustEverything(provider)))
    } else {
        builder.with_root_certificates(roots(spec)?)
    };
    let mut config = match &spec.identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let chain = chain.map_err(|e| OriginError::Identity("certificate", e.to_string()))?;
            if chain.is_empty() {
                return Err(OriginError::Identity("certificate", "there is none in this PEM".to_owned()));
            }
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|e| OriginError::Identity("key", e.to_string()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| OriginError::Identity("certificate and key", e.to_string()))?
        }
    };
    if !spec.resume {
        config.resumption = Resumption::disabled();
    }
    config.alpn_protocols = protocol.alpn().into_iter().map(<[u8]>::to_vec).collect();
    Ok(config)
}

fn roots(spec: &TlsSpec) -> Result<RootCertStore, OriginError> {
    let mut roots = RootCertStore::empty();
    // A system without readable roots is fine as long as a CA is given; otherwise every handshake says so.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = &spec.ca {
        let given: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let given = given.map_err(|e| OriginError::Ca(e.to_string()))?;
        if given.is_empty() {
            return Err(OriginError::Ca("it has none".to_owned()));
        }
        for certificate in given {
            roots.add(certificate).map_err(|e| OriginError::Ca(e.to_string()))?;
        }
    }
    Ok(roots)
}

/// Verifies signatures but not identities: `insecure` is written by the user, never a default.
#[derive(Debug)]
struct TrustEverything(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustEverything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
