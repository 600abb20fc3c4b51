//! Mutual TLS: who a node is, by certificate, and whom it believes.

mod session;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::{fmt, io};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use synod_core::{ClusterId, Identity, NodeId};

pub(crate) use session::{Session, ShakeError, refusal_of};

/// The name that the certificate of a node must hold, as a DNS name among its alternative ones:
/// `node-3.0000000000000000000000000000002a.synod` for node 3 of cluster 42.
///
/// The cluster is written in 32 hexadecimal digits. A certificate may hold several names; a wildcard,
/// `*.0000000000000000000000000000002a.synod`, stands for every node of its cluster and is better not given out.
#[must_use]
pub fn certificate_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{}.{:032x}.synod", node.0, cluster.0)
}

/// What a node proves itself with, in PEM.
#[derive(Clone)]
#[non_exhaustive]
pub struct TlsPem {
    /// Its certificate, then those between it and the authority, if there are any.
    pub certificate: Vec<u8>,
    /// The private key of the certificate: PKCS #8, SEC 1 or PKCS #1.
    pub key: Vec<u8>,
    /// The certificates of the authorities that peers may be certified by: one, or two while it is exchanged.
    pub authority: Vec<u8>,
    /// Lists of revoked certificates, signed by the authority; may be empty.
    pub revoked: Vec<u8>,
}

/// The key is not shown.
impl fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPem").finish_non_exhaustive()
    }
}

impl TlsPem {
    /// From bytes.
    #[must_use]
    pub fn new(
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
        authority: impl Into<Vec<u8>>,
    ) -> TlsPem {
        let (certificate, key, authority) = (certificate.into(), key.into(), authority.into());
        TlsPem { certificate, key, authority, revoked: Vec::new() }
    }

    /// From files.
    ///
    /// # Errors
    /// [`TlsError::Read`] names the file that cannot be read.
    pub fn read(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
        authority: impl AsRef<Path>,
    ) -> Result<TlsPem, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        Ok(TlsPem::new(read(certificate.as_ref())?, read(key.as_ref())?, read(authority.as_ref())?))
    }
}

/// Why certificates and keys are of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What should be PEM is not, or holds nothing of what is wanted.
    #[error("no {0} in PEM")]
    Pem(&'static str),
    /// The certificate and the key do not belong together, or are of a kind that is not supported.
    #[error("the certificate and its key cannot be used")]
    Certificate(#[source] rustls::Error),
    /// A certificate of an authority, or a list of revoked ones, cannot be used.
    #[error("the authority cannot be used")]
    Authority(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Mutual TLS for a [`Tcp`](crate::Tcp), version 1.3 only. Clones are one: what is [replaced](Tls::replace) through
/// one of them counts for all.
///
/// Both ends of a connection show a certificate of an authority that the other names, with the
/// [name](certificate_name) of the node and cluster that they claim in the handshake. Which nodes are peers is up to
/// the membership, not to the authority.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<Configs>>>);

struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    own: CertificateDer<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// With these certificates and this key.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used.
    pub fn new(pem: &TlsPem) -> Result<Tls, TlsError> {
        Ok(Tls(Arc::new(RwLock::new(Arc::new(Configs::new(pem)?)))))
    }

    /// Uses others from the next handshake on. Connections that stand stay as they are: whoever is to lose one is
    /// taken out of the membership, or its node restarted.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used; then the ones before stay in use.
    pub fn replace(&self, pem: &TlsPem) -> Result<(), TlsError> {
        let configs = Arc::new(Configs::new(pem)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    fn configs(&self) -> Arc<Configs> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the own certificate holds the name of this node.
    pub(crate) fn is_of(&self, identity: &Identity) -> bool {
        holds_name(&self.configs().own, identity)
    }

    /// For a connection that was made to a peer.
    pub(crate) fn client(&self, peer: &Identity) -> Result<Session, rustls::Error> {
        let name = server_name(peer).ok_or(rustls::Error::UnsupportedNameType)?;
        let client = ClientConnection::new(Arc::clone(&self.configs().client), name)?;
        Ok(Session::new(client.into()))
    }

    /// For a connection that somebody made.
    pub(crate) fn server(&self) -> Result<Session, rustls::Error> {
        let server = ServerConnection::new(Arc::clone(&self.configs().server))?;
        Ok(Session::new(server.into()))
    }
}

impl Configs {
    fn new(pem: &TlsPem) -> Result<Configs, TlsError> {
        let chain = certificates(&pem.certificate, "certificate")?;
        let own = chain[0].clone();
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| TlsError::Pem("private key"))?;
        let mut authorities = RootCertStore::empty();
        for authority in certificates(&pem.authority, "authority")? {
            authorities.add(authority).map_err(|error| TlsError::Authority(error.into()))?;
        }
        let revoked =
            CertificateRevocationListDer::pem_slice_iter(&pem.revoked).collect::<Result<Vec<_>, _>>();
        let revoked = revoked.map_err(|_| TlsError::Pem("list of revoked certificates"))?;
        let (authorities, provider) = (Arc::new(authorities), Arc::new(provider()));
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&authorities), Arc::clone(&provider))
                .with_crls(revoked.clone())
                .only_check_end_entity_revocation();
        // A certificate of which no list says anything is not revoked.
        let of_servers = builder
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| TlsError::Authority(error.into()))?;
        let of_clients = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider))
            .with_crls(revoked)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| TlsError::Authority(error.into()))?;

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Certificate)?
            .with_webpki_verifier(of_servers)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(TlsError::Certificate)?;
        // A resumed session would show no certificate.
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Certificate)?
            .with_client_cert_verifier(of_clients)
            .with_single_cert(chain, key)
            .map_err(TlsError::Certificate)?;
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Configs { client: Arc::new(client), server: Arc::new(server), own })
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    certificates.ok().filter(|certificates| !certificates.is_empty()).ok_or(TlsError::Pem(what))
}

/// The cheapest suite that is strong enough comes first: between nodes it is spoken all day.
fn provider() -> CryptoProvider {
    let cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

fn server_name(identity: &Identity) -> Option<ServerName<'static>> {
    ServerName::try_from(certificate_name(identity.cluster, identity.node)).ok()
}

fn holds_name(certificate: &CertificateDer<'_>, identity: &Identity) -> bool {
    let (Ok(certificate), Some(name)) = (ParsedCertificate::try_from(certificate), server_name(identity))
    else {
        return false;
    };
    rustls::client::verify_server_name(&certificate, &name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_certificate_is_fixed() {
        assert_eq!(
            certificate_name(ClusterId(42), NodeId(3)),
            "node-3.0000000000000000000000000000002a.synod"
        );
        let longest =
            Identity { cluster: ClusterId(u128::MAX), node: NodeId(u64::MAX), ..Identity::default() };
        assert!(server_name(&longest).is_some());
    }

    #[test]
    fn what_is_no_pem_is_named() {
        let error = Tls::new(&TlsPem::new("", "", "")).expect_err("nothing is in it");
        assert_eq!(error.to_string(), "no certificate in PEM");
        let missing = TlsPem::read("/nowhere/to/be/found", "", "").expect_err("there is no such file");
        assert_eq!(missing.to_string(), "cannot read /nowhere/to/be/found");
    }
}
