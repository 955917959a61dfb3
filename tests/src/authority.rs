//! Certificates of our own making.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
    date_time_ymd,
};

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
    /// Puts its own certificate and key, and whatever it makes, into a directory.
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
        fs::write(directory.join(format!("{name}.key")), issuer.key().serialize_pem())?;
        Ok(Self { directory: directory.to_owned(), issuer })
    }

    /// A certificate for a name, good until the first day of a year.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn vouch(&self, name: &str, until: i32) -> Result<Identity> {
        let params = CertificateParams::new(vec![name.to_owned()])?;
        self.sign(params, name, until, "")
    }

    /// The same with a number, and with a word on where this authority is asked about it; its own certificate stands behind.
    /// `url` has less than 100 bytes.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn vouch_answerably(&self, name: &str, until: i32, serial: u8, url: &str) -> Result<Identity> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.serial_number = Some(vec![serial].into());
        let len = u8::try_from(url.len())?;
        // RFC 5280, 4.2.2.1: a list of one, id-ad-ocsp and a URI.
        let head = [0x30, len + 14, 0x30, len + 12, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 0x86, len];
        let access = [&head, url.as_bytes()].concat();
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access)];
        self.sign(params, name, until, &self.issuer.pem())
    }

    fn sign(&self, mut params: CertificateParams, name: &str, until: i32, behind: &str) -> Result<Identity> {
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate()?;
        let file = |kind: &str| self.directory.join(format!("{name}-{until}.{kind}"));
        let identity = Identity { certificate: file("pem"), key: file("key") };
        fs::write(&identity.certificate, params.signed_by(&key, &self.issuer)?.pem() + behind)?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}
