//! Certificates for the replicas of one run, by an authority that ends with it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use synod_core::{ClusterId, NodeId};
use synod_transport::{Tls, TlsPem, certificate_name};

/// Why there are none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificatesError {
    /// They were not made.
    #[error("certificates cannot be made")]
    Make(#[from] rcgen::Error),
    /// They are of no use.
    #[error("certificates cannot be used")]
    Use(#[from] synod_transport::TlsError),
}

/// What replicas `1..=replicas` of the cluster that runs have without a name prove themselves with, in order.
///
/// # Errors
/// [`CertificatesError`].
pub fn certificates(replicas: u64) -> Result<Vec<Tls>, CertificatesError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let certify = |node| {
        let params = CertificateParams::new(vec![certificate_name(ClusterId::default(), NodeId(node))])?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        let pem = TlsPem::new(certificate.pem(), key.serialize_pem(), authority.as_ref().pem());
        Ok(Tls::new(&pem)?)
    };
    (1..=replicas).map(certify).collect()
}
