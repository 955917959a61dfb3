//! Certificates of our own making.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// One that vouches for what it is asked to.
pub struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of one certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// In PEM.
    pub certificate: PathBuf,
    /// In PEM.
    pub key: PathBuf,
}

impl Authority {
    /// Puts its own certificate, and whatever it makes, into a directory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        // Two of the same name would be taken for one another.
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(directory.join(format!("{name}.pem")), issuer.pem())?;
        Ok(Self { directory: directory.to_owned(), issuer })
    }

    /// A certificate for a name, good until the first day of a year.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn vouch(&self, name: &str, until: i32) -> Result<Identity> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate()?;
        let file = |kind: &str| self.directory.join(format!("{name}-{until}.{kind}"));
        let identity = Identity { certificate: file("pem"), key: file("key") };
        fs::write(&identity.certificate, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}
