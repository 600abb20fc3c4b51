//! An authority of tests, and the certificates that it gives out.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use synod_core::{ClusterId, NodeId};
use synod_transport::{Tls, TlsPem, certificate_name};

use super::CLUSTER;

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a certificate says, where it is not what it should say.
#[derive(Clone)]
pub struct Claim {
    pub cluster: ClusterId,
    pub node: u64,
    /// The first and the last year in which it is valid.
    pub years: (i32, i32),
    pub serial: u64,
}

impl Claim {
    pub fn of(node: u64) -> Claim {
        Claim { cluster: CLUSTER, node, years: (2020, 4000), serial: node }
    }
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// The certificate of the authority.
    pub fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    pub fn certify(&self, claim: &Claim) -> TlsPem {
        let name = certificate_name(claim.cluster, NodeId(claim.node));
        let mut params = CertificateParams::new(vec![name]).expect("a name");
        params.not_before = date_time_ymd(claim.years.0, 1, 1);
        params.not_after = date_time_ymd(claim.years.1, 1, 1);
        params.serial_number = Some(SerialNumber::from(claim.serial));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        TlsPem::new(certificate.pem(), key.serialize_pem(), self.pem())
    }

    /// A list that revokes a certificate.
    pub fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).expect("a list").pem().expect("in PEM")
    }

    /// What a node needs to prove itself.
    pub fn tls(&self, node: u64) -> Tls {
        Tls::new(&self.certify(&Claim::of(node))).expect("certificates of tests are good")
    }
}
