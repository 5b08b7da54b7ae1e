//! A certificate authority for loopback, made anew for each run.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A certificate with its private key, both PEM.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: String,
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one with a new key.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn new() -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "policy-operator test authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?,
        })
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for `127.0.0.1` and `localhost`.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn server(&self) -> Result<Certified> {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        self.certify(CertificateParams::new(names)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate; Kubernetes takes `name` as the user and `group` as the group.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn client(&self, name: &str, group: &str) -> Result<Certified> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.distinguished_name.push(DnType::OrganizationName, group);
        self.certify(parameters, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn certify(&self, mut parameters: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Result<Certified> {
        parameters.extended_key_usages = vec![purpose];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}
