//! How connections of one listener are made: which of its certificates, and on what terms.
//!
//! It is never changed; workers share it. What a client asks for is looked up without making anything.

use std::{borrow::Cow, collections::HashMap, fmt, net::IpAddr, sync::Arc};

use foldhash::fast::FixedState;
use rustls::{ServerConfig, server::ClientHello};

use super::{entry::Entry, name::CertificateName};

/// No certificate of the listener is for the name that a client asks for, and none is the default. RFC 6066, 3: alert
/// `unrecognized_name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCertificate;

impl std::error::Error for NoCertificate {}

impl fmt::Display for NoCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no certificate is for this name, and none is the default")
    }
}

/// Two entries that cannot stand beside each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// Both have this name.
    Name(String, Arc<str>, Arc<str>),
    /// Both are the default.
    Default(Arc<str>, Arc<str>),
}

impl std::error::Error for Clash {}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name, one, other) => write!(
                f,
                "tls.{one} and tls.{other} both have the name {name}; keys of several types stand in one entry, and \
                 `names` says which names an entry has"
            ),
            Self::Default(one, other) => write!(f, "tls.{one} and tls.{other} are both the default"),
        }
    }
}

/// Places of entries by their names.
type Places = HashMap<Box<str>, usize, FixedState>;

/// How connections of one listener are made.
pub struct Server {
    protocols: Vec<Vec<u8>>,
    entries: Vec<Made>,
    exact: Places,
    /// By what follows the first label.
    wildcards: Places,
    default: Option<usize>,
}

/// An entry, with what this listener speaks.
struct Made {
    entry: Arc<Entry>,
    config: Arc<ServerConfig>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|made| made.entry.name())).finish()
    }
}

impl Server {
    /// Of the entries that a listener names, whose clients may speak these protocols (RFC 7301); none: nothing is said
    /// of them.
    ///
    /// # Errors
    /// What a client asks for would be in two of them.
    pub fn new(entries: &[Arc<Entry>], protocols: &[&[u8]]) -> Result<Self, Clash> {
        let mut server = Self {
            protocols: protocols.iter().map(|name| name.to_vec()).collect(),
            entries: Vec::with_capacity(entries.len()),
            exact: Places::default(),
            wildcards: Places::default(),
            default: None,
        };
        for (place, entry) in entries.iter().enumerate() {
            for name in entry.names() {
                let (places, key) = match name {
                    CertificateName::Exact(name) => (&mut server.exact, name),
                    CertificateName::Wildcard(parent) => (&mut server.wildcards, parent),
                };
                if let Some(other) = places.insert(key.clone(), place).filter(|other| *other != place) {
                    let other = entries[other].name().clone();
                    return Err(Clash::Name(name.to_string(), other, entry.name().clone()));
                }
            }
            if entry.is_default()
                && let Some(other) = server.default.replace(place)
            {
                return Err(Clash::Default(entries[other].name().clone(), entry.name().clone()));
            }
            let mut config = entry.config().clone();
            config.alpn_protocols.clone_from(&server.protocols);
            server.entries.push(Made { entry: entry.clone(), config: Arc::new(config) });
        }
        Ok(server)
    }

    /// On what terms a client that begins so is served.
    ///
    /// # Errors
    /// It asks for a name that nothing here is for.
    pub fn choose(&self, hello: &ClientHello<'_>) -> Result<Arc<ServerConfig>, NoCertificate> {
        self.made(hello.server_name()).map(|made| made.config.clone()).ok_or(NoCertificate)
    }

    /// The entry that a client gets that asks for this name, or for none.
    pub fn entry(&self, sni: Option<&str>) -> Option<&Arc<Entry>> {
        self.made(sni).map(|made| &made.entry)
    }

    /// What its clients may speak.
    pub fn protocols(&self) -> &[Vec<u8>] {
        &self.protocols
    }

    /// All of its entries.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Arc<Entry>> {
        self.entries.iter().map(|made| &made.entry)
    }

    /// Whether a request for this host (with or without a port) may come on a connection that asked for this name. It
    /// may where one that asked for the host would have been made by the same entry, and that is for the host: what is
    /// asked of a client is its entry's, and no request goes past it. Where not, RFC 9110, 15.5.20: 421.
    ///
    /// Of the default's clients some ask for no name, as those that have an address alone: they may name it.
    pub fn covers(&self, sni: Option<&str>, host: &[u8]) -> bool {
        let Some(host) = name_of(host) else { return false };
        let own = sni.and_then(|sni| name_of(sni.as_bytes()));
        let Some(place) = self.place(own.as_deref()) else { return false };
        if own.as_deref() == Some(&*host) {
            return true;
        }
        match self.named(&host) {
            Some(named) => named == place,
            None => own.is_none() && host.parse::<IpAddr>().is_ok(),
        }
    }

    fn made(&self, sni: Option<&str>) -> Option<&Made> {
        let name = sni.and_then(|sni| name_of(sni.as_bytes()));
        self.entries.get(self.place(name.as_deref())?)
    }

    fn place(&self, name: Option<&str>) -> Option<usize> {
        name.and_then(|name| self.named(name)).or(self.default)
    }

    /// A wildcard stands for one label (RFC 6125, 6.4.3), so that at most one fits.
    fn named(&self, name: &str) -> Option<usize> {
        self.exact.get(name).or_else(|| self.wildcards.get(name.split_once('.')?.1)).copied()
    }
}

/// A host without its port, its last dot and capitals; `None` where it is none.
fn name_of(host: &[u8]) -> Option<Cow<'_, str>> {
    let host = std::str::from_utf8(host).ok()?;
    let name = match host.strip_prefix('[') {
        Some(literal) => literal.split_once(']')?.0,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return None;
    }
    Some(match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::TlsProfile,
        tls::{Certificate, KEY_BYTES, Parts, TicketKeys, Tickets, certificate::tests::Authority},
    };

    fn entry(name: &str, names: &[&str], is_default: bool) -> Arc<Entry> {
        let (chain, key) = Authority::new("ours").issue(names, &rcgen::PKCS_ECDSA_P256_SHA256);
        let certificates = vec![Certificate::of_pem(chain.as_bytes(), key.as_bytes(), None).unwrap()];
        let parts = Parts {
            name: name.into(),
            certificates,
            names: None,
            is_default,
            profile: TlsProfile::Default,
            clients: None,
            tickets: Tickets::new(name.into(), &TicketKeys::new([7; KEY_BYTES])).unwrap(),
            early_data: None,
        };
        Arc::new(Entry::new(parts).unwrap())
    }

    fn server(entries: &[Arc<Entry>]) -> Server {
        Server::new(entries, &[b"http/1.1"]).unwrap()
    }

    #[test]
    fn a_whole_name_goes_before_a_wildcard_before_the_default() {
        let one = entry("one", &["a.example", "*.a.example"], false);
        let two = entry("two", &["b.a.example"], false);
        let rest = entry("rest", &["c.example"], true);
        let found =
            |server: &Server, sni: Option<&str>| server.entry(sni).map(|entry| entry.name().to_string());
        let with = server(&[one.clone(), two.clone(), rest]);
        let without = server(&[one, two]);
        for (sni, expected, else_expected) in [
            (Some("a.example"), "one", Some("one")),
            (Some("A.Example."), "one", Some("one")),
            (Some("x.a.example"), "one", Some("one")),
            (Some("b.a.example"), "two", Some("two")),
            // A wildcard is one label.
            (Some("x.y.a.example"), "rest", None),
            (Some("example"), "rest", None),
            (Some(""), "rest", None),
            (None, "rest", None),
        ] {
            assert_eq!(found(&with, sni).as_deref(), Some(expected), "{sni:?}");
            assert_eq!(found(&without, sni).as_deref(), else_expected, "{sni:?}");
        }
    }

    #[test]
    fn a_request_stays_with_the_entry_of_its_connection() {
        let one = entry("one", &["a.example", "*.a.example", "192.0.2.7"], true);
        let two = entry("two", &["b.a.example", "b.example"], false);
        let server = server(&[one, two]);
        for (sni, host, is_covered) in [
            (Some("a.example"), "a.example", true),
            (Some("a.example"), "A.EXAMPLE:8443", true),
            (Some("a.example"), "x.a.example.", true),
            // Whose certificate it is, and not whose would do, too.
            (Some("a.example"), "b.a.example", false),
            (Some("b.example"), "b.a.example", true),
            (Some("b.example"), "a.example", false),
            (Some("b.example"), "other.example", false),
            (Some("a.example"), "other.example", false),
            // The default's, by the very name.
            (Some("other.example"), "other.example:443", true),
            (Some("other.example"), "third.example", false),
            (Some("other.example"), "a.example", true),
            (None, "a.example", true),
            (None, "b.example", false),
            (None, "other.example", false),
            (None, "192.0.2.7:443", true),
            (None, "198.51.100.1", true),
            (None, "[2001:db8::1]:443", true),
            (Some("a.example"), "198.51.100.1", false),
            (Some("a.example"), "", false),
            (Some("a.example"), ":443", false),
            (Some("a.example"), "\u{e4}", false),
        ] {
            assert_eq!(server.covers(sni, host.as_bytes()), is_covered, "{sni:?} {host}");
        }
        assert!(!server.covers(Some("a.example"), b"\xff"));
    }

    #[test]
    fn entries_of_a_listener_have_no_name_in_common() {
        let (one, two) = (entry("one", &["a", "b"], true), entry("two", &["B"], false));
        let clash = Server::new(&[one.clone(), two], &[]).unwrap_err();
        assert_eq!(clash, Clash::Name("b".into(), "one".into(), "two".into()));
        let clash = Server::new(&[one, entry("two", &["c"], true)], &[]).unwrap_err();
        assert_eq!(clash.to_string(), "tls.one and tls.two are both the default");
    }
}
