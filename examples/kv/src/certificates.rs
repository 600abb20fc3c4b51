//! Certificates to try a cluster out with: in earnest an authority of your own gives them out.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use synod_core::{ClusterId, NodeId};
use synod_transport::certificate_name;

/// Why there are none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificatesError {
    /// A file cannot be read or written. None is written over.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// They cannot be made, or the authority that is there cannot be used.
    #[error("certificates cannot be made")]
    Make(#[from] rcgen::Error),
}

/// Writes `node-N.pem` and `node-N.key` for each node into `dir`, certified by the authority of `authority.pem` and
/// `authority.key` there, which is made first if it is not there.
///
/// # Errors
/// [`CertificatesError`].
pub fn write(dir: &Path, cluster: ClusterId, nodes: &[NodeId]) -> Result<(), CertificatesError> {
    std::fs::create_dir_all(dir)
        .map_err(|source| CertificatesError::File { path: dir.to_owned(), source })?;
    let key_path = dir.join("authority.key");
    let key = if key_path.exists() {
        let pem = std::fs::read_to_string(&key_path);
        KeyPair::from_pem(&pem.map_err(|source| CertificatesError::File { path: key_path, source })?)?
    } else {
        let key = KeyPair::generate()?;
        let authority = CertifiedIssuer::self_signed(authority(cluster), &key)?;
        create(&key_path, &key.serialize_pem(), 0o600)?;
        create(&dir.join("authority.pem"), &authority.as_ref().pem(), 0o644)?;
        key
    };
    // Name and key make an authority; when it was certified does not matter to those it certifies.
    let issuer = Issuer::new(authority(cluster), key);
    for &NodeId(node) in nodes {
        let mut params = CertificateParams::new(vec![certificate_name(cluster, NodeId(node))])?;
        params.distinguished_name.push(DnType::CommonName, format!("synod node {node}"));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        create(&dir.join(format!("node-{node}.key")), &key.serialize_pem(), 0o600)?;
        create(&dir.join(format!("node-{node}.pem")), &certificate.pem(), 0o644)?;
    }
    Ok(())
}

fn authority(cluster: ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("synod test authority {:032x}", cluster.0));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A new file; one that is there is left alone.
fn create(path: &Path, pem: &str, mode: u32) -> Result<(), CertificatesError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(pem.as_bytes()));
    written.map_err(|source| CertificatesError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use synod_transport::{Tls, TlsPem};

    use super::*;

    #[test]
    fn certificates_can_be_used_later_ones_of_the_same_authority_too_and_none_is_written_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        write(dir.path(), ClusterId(7), &[NodeId(1), NodeId(2)]).expect("certificates");
        write(dir.path(), ClusterId(7), &[NodeId(3)]).expect("one more");
        for node in 1..=3 {
            let (pem, key) = (at(&format!("node-{node}.pem")), at(&format!("node-{node}.key")));
            Tls::new(&TlsPem::read(pem, key, at("authority.pem")).expect("files")).expect("good ones");
        }
        let again = write(dir.path(), ClusterId(7), &[NodeId(2)]).expect_err("it is there");
        assert!(matches!(again, CertificatesError::File { path, .. } if path == at("node-2.key")));
    }
}
