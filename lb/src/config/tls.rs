//! `[tls.NAME]` and `pool.tls`: certificates by reference, and on what terms TLS is spoken.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{CheckTrust, HostPattern};

/// `[tls.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// One for each type of key; never empty.
    pub certificates: Vec<CertificateFiles>,
    /// Names that it is for; empty: those of its certificates. A wildcard stands for one label.
    pub names: Vec<HostPattern>,
    /// Whether it is for whoever asks for no name, or for one that no other entry of the listener has.
    pub default: bool,
    /// Versions and ciphers.
    pub profile: TlsProfile,
    /// What is asked of clients; `None`: nothing.
    pub client_auth: Option<ClientAuth>,
    /// Keys of tickets that other boxes have, too; `None`: made here.
    pub tickets: Option<PathBuf>,
    /// Most bytes that a client may send before hands are shaken (0-RTT); `None`: none.
    pub early_data: Option<u32>,
}

impl Tls {
    /// Every file that it refers to, with the key that does.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let certificates = self.certificates.iter().flat_map(CertificateFiles::files);
        let clients = self.client_auth.iter().flat_map(|clients| {
            let lists = clients.crl.iter().map(|path| ("client_auth.crl", &**path));
            std::iter::once(("client_auth.ca", &*clients.ca)).chain(lists)
        });
        certificates.chain(clients).chain(self.tickets.iter().map(|path| ("tickets", &**path)))
    }
}

/// A certificate, its key and what goes with them: files beneath the config's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the own one first, then those that vouch for it.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// What its authority says of it; `None`: nobody is told.
    pub ocsp: Option<Ocsp>,
}

/// Where it comes from what an authority says of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ocsp {
    /// A file beneath the config's directory, in DER.
    File(PathBuf),
    /// Whoever the certificate names is asked.
    Fetch,
}

impl Ocsp {
    /// The file.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Fetch => None,
        }
    }
}

impl CertificateFiles {
    /// Every file, with the key that refers to it.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let ocsp = self.ocsp.iter().filter_map(|ocsp| Some(("ocsp", ocsp.file()?)));
        [("certificate", &*self.certificate), ("key", &*self.key)].into_iter().chain(ocsp)
    }
}

/// `tls.profile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsProfile {
    /// TLS 1.2 and 1.3; of both what has forward secrecy and authenticates what it encrypts. X25519MLKEM768 first.
    #[default]
    Default,
    /// TLS 1.3 alone.
    Modern,
    /// Whatever rustls has: the default's, and key exchanges that hardly anybody asks for.
    Compatible,
}

/// `tls.client_auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Authorities that vouch for clients, in PEM.
    pub ca: PathBuf,
    /// Whether who shows no certificate is turned away; who shows a bad one is in any case.
    pub is_required: bool,
    /// Certificates that are not good any more, in PEM or DER.
    pub crl: Vec<PathBuf>,
    /// Fields that tell backends who it is, lower-cased, by name; clients never send them past us.
    pub headers: Vec<(Arc<str>, ClientField)>,
}

/// What a field of `tls.client_auth.headers` tells of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientField {
    /// Its certificate, as `Client-Cert` has it (RFC 9440, 2.2).
    Certificate,
    /// Those that vouch for it, as `Client-Cert-Chain` has them (RFC 9440, 2.3).
    Chain,
    /// Its subject (RFC 4514).
    Subject,
    /// Who vouches for it (RFC 4514).
    Issuer,
    /// Its number, hexadecimal.
    Serial,
    /// Its alternative names: DNS names, addresses, URIs and mail addresses, by commas.
    Names,
    /// SHA-256 of it, hexadecimal.
    Fingerprint,
}

/// `pool.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTls {
    /// Whose certificates are good.
    pub trust: CheckTrust,
    /// The name that is asked for and that certificates must be for; `None`: each backend's own name or address.
    pub sni: Option<Arc<str>>,
    /// What is shown to backends that ask.
    pub certificate: Option<CertificateFiles>,
    /// Protocols that are offered (RFC 7301); empty: nothing is said of them.
    pub alpn: Vec<Arc<str>>,
}

impl PoolTls {
    /// Every file that it refers to, with the key that does.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let ca = self.trust.file().map(|path| ("ca", path));
        ca.into_iter().chain(self.certificate.iter().flat_map(CertificateFiles::files))
    }
}
