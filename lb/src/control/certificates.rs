//! Certificates and what goes with them: read by reference, checked against each other, and made into what workers use.
//! Of what has not changed since it was read the very same is used on.
//!
//! ```text
//!  [tls.NAME] --> Reading (files, digests) --> Entry --+--> Server by listener --+--> TlsParts --> workers
//!  pool.tls   --> Reading ------------------> Upstream ----------- by pool ------+
//!  pool.health --> Reading -----------------> Upstream ----------- by pool ------------------> prober
//! ```

mod material;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::rand;

use self::material::{Host, Known, Material, Reading, Shown};
pub(super) use self::watch::Watch;
use super::staples::{Asked, FileDigest, Staples};
use crate::{
    admin::{
        certificates::{CertificateViews, RevocationView, now_seconds},
        changes::Refusal,
    },
    config::{Config, Listener, Problem, Protocol, Severity},
    tls::{Entry, KEY_BYTES, Server, TicketKeys, Upstream, ocsp::Staple},
    worker::TlsParts,
};

/// Sets of keys that open tickets: the one that seals, and the one before it.
const KEYS_OPEN: usize = 2;

/// Protocols that http listeners speak.
const HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Without HTTP/2.
const HTTP1: &[&[u8]] = &[b"http/1.1"];

/// What a reference leads to, and why that is of no use. Never quotes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The key, such as `tls.a.key`.
    pub(super) at: String,
    /// With the file.
    pub(super) message: String,
}

impl std::error::Error for Misfit {}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

impl From<Misfit> for Refusal {
    fn from(Misfit { at, message }: Misfit) -> Self {
        Self::Unappliable { at, message }
    }
}

/// What becomes of something that is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing is loaded.
    Whole,
    /// What was there goes on.
    KeepOld,
}

/// Everything of TLS that is loaded.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    /// For workers.
    pub(super) parts: TlsParts,
    keys: TicketKeys,
    entries: BTreeMap<Arc<str>, Known<Entry>>,
    upstreams: BTreeMap<Arc<str>, Known<Upstream>>,
    /// By the pools that they are of.
    checks: BTreeMap<Arc<str>, Known<Upstream>>,
    /// Answers of OCSP that were fetched, by the content of the certificates' files.
    staples: BTreeMap<FileDigest, Staple>,
}

impl Certificates {
    /// None yet. `keys`: of tickets, as another process handed them on.
    ///
    /// # Errors
    /// There is no randomness.
    pub(super) fn none(keys: Option<TicketKeys>) -> anyhow::Result<Self> {
        let keys = match keys {
            Some(keys) => keys,
            None => TicketKeys::new(key()?),
        };
        Ok(Self::empty(keys))
    }

    fn empty(keys: TicketKeys) -> Self {
        let (entries, upstreams, checks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { parts: TlsParts::default(), keys, entries, upstreams, checks, staples: BTreeMap::new() }
    }

    /// Reads what a config names, beneath its directory.
    ///
    /// # Errors
    /// Everything that is of no use.
    pub(super) fn load(&self, config: &Config, directory: &Path) -> Result<Self, Vec<Misfit>> {
        let (loaded, misfits) = self.read(config, directory, Mode::Whole);
        if misfits.is_empty() { Ok(loaded) } else { Err(misfits) }
    }

    /// The same, with what is of no use.
    pub(super) fn read(&self, config: &Config, directory: &Path, mode: Mode) -> (Self, Vec<Misfit>) {
        let mut misfits = Vec::new();
        let mut loaded = Self::empty(self.keys.clone());
        for (name, tls) in &config.tls {
            let reading = Reading { at: format!("tls.{name}"), directory, staples: &self.staples };
            let known = self.entries.get(name);
            let made = Material::of_entry(&reading, tls).and_then(|material| {
                let former = known.map(|known| &*known.made);
                known_or(known, &material, || material.entry(&reading, name, tls, &self.keys, former))
            });
            keep(&mut loaded.entries, &self.entries, name, made, mode, &mut misfits);
        }
        loaded.read_pools(self, config, directory, mode, &mut misfits);
        let asked: BTreeSet<_> = loaded.asked().map(|(of, _)| of).collect();
        let staples = self.staples.iter().filter(|(of, _)| asked.contains(*of));
        loaded.staples = staples.map(|(of, staple)| (*of, staple.clone())).collect();
        loaded.parts.pools =
            loaded.upstreams.iter().map(|(name, known)| (name.clone(), known.made.clone())).collect();
        for (name, listener) in config.listeners.iter().filter(|(_, listener)| !listener.tls.is_empty()) {
            match loaded.server(listener, self.parts.listeners.get(name)) {
                // Something of it is of no use, which was said.
                None => {}
                Some(Ok(server)) => _ = loaded.parts.listeners.insert(name.clone(), server),
                Some(Err(message)) => {
                    misfits.push(Misfit { at: format!("listener.{name}.tls"), message });
                    if let Some(old) = self.parts.listeners.get(name).filter(|_| mode == Mode::KeepOld) {
                        loaded.parts.listeners.insert(name.clone(), old.clone());
                    }
                }
            }
        }
        (loaded, misfits)
    }

    /// What is spoken with backends, by clients' requests and by checks.
    fn read_pools(
        &mut self,
        before: &Self,
        config: &Config,
        directory: &Path,
        mode: Mode,
        misfits: &mut Vec<Misfit>,
    ) {
        let mut host = Host::default();
        for (name, pool) in &config.pools {
            if let Some(tls) = &pool.tls {
                let at = format!("pool.{name}.tls");
                let reading = Reading { at, directory, staples: &before.staples };
                let known = before.upstreams.get(name);
                let made = Material::of_pool(&reading, tls, &mut host)
                    .and_then(|material| known_or(known, &material, || material.upstream(&reading, tls)));
                keep(&mut self.upstreams, &before.upstreams, name, made, mode, misfits);
            }
            let kind = pool.health.as_ref().map(|health| &health.kind);
            if let Some((kind, tls)) = kind.and_then(|kind| Some((kind, kind.tls()?))) {
                let at = format!("pool.{name}.health");
                let reading = Reading { at, directory, staples: &before.staples };
                let known = before.checks.get(name);
                let made = Material::of_check(&reading, kind, tls, &mut host)
                    .and_then(|material| known_or(known, &material, || material.check(&reading, kind, tls)));
                keep(&mut self.checks, &before.checks, name, made, mode, misfits);
            }
        }
    }

    /// How the checks of a pool speak TLS, if they do.
    pub(super) fn check(&self, pool: &str) -> Option<Arc<Upstream>> {
        self.checks.get(pool).map(|known| known.made.clone())
    }

    /// How connections of a listener are made; `None`: an entry of it is missing. `before`: the one until now.
    fn server(
        &self,
        listener: &Listener,
        before: Option<&Arc<Server>>,
    ) -> Option<Result<Arc<Server>, String>> {
        let entry = |name: &Arc<str>| self.entries.get(name).map(|known| known.made.clone());
        let entries: Vec<_> = listener.tls.iter().map(entry).collect::<Option<_>>()?;
        let protocols = match listener.protocol {
            Protocol::Http if listener.h2 => HTTP,
            Protocol::Http => HTTP1,
            Protocol::Tcp | Protocol::Udp => &[],
        };
        let is_same = |server: &&Arc<Server>| {
            server.protocols() == protocols
                && server.entries().len() == entries.len()
                && server.entries().zip(&entries).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        if let Some(server) = before.filter(is_same) {
            return Some(Ok(server.clone()));
        }
        Some(Server::new(&entries, protocols).map(Arc::new).map_err(|clash| clash.to_string()))
    }

    /// Whether workers have to be told of it.
    pub(super) fn differs(&self, before: &Self) -> bool {
        fn differ<T>(now: &BTreeMap<Arc<str>, Arc<T>>, before: &BTreeMap<Arc<str>, Arc<T>>) -> bool {
            let is_same = |name, made| before.get(name).is_some_and(|before| Arc::ptr_eq(made, before));
            now.len() != before.len() || !now.iter().all(|(name, made)| is_same(name, made))
        }
        differ(&self.parts.listeners, &before.parts.listeners)
            || differ(&self.parts.pools, &before.parts.pools)
    }

    /// What is not as it was, by the keys of the config.
    pub(super) fn swapped(&self, before: &Self) -> Vec<String> {
        let entries = self.entries.iter().filter(|(name, now)| is_other(now, before.entries.get(*name)));
        let entries = entries.map(|(name, _)| format!("tls.{name}"));
        let pools = self.upstreams.iter().filter(|(name, now)| is_other(now, before.upstreams.get(*name)));
        let checks = self.checks.iter().filter(|(name, now)| is_other(now, before.checks.get(*name)));
        let pools = pools.map(|(name, _)| format!("pool.{name}.tls"));
        entries.chain(pools).chain(checks.map(|(name, _)| format!("pool.{name}.health"))).collect()
    }

    /// What authorities are asked of certificates.
    pub(super) fn asked(&self) -> impl Iterator<Item = (FileDigest, Asked)> {
        self.entries.iter().flat_map(|(name, known)| {
            known.certificates.iter().filter_map(move |shown| {
                let (of, question) = shown.asked.as_ref()?;
                let (at, file) = (format!("tls.{name}"), shown.file.clone());
                Some((*of, Asked { at, file, question: question.clone() }))
            })
        })
    }

    /// What is read from now on shows these answers of OCSP.
    pub(super) fn put_staples(&mut self, staples: Vec<(FileDigest, Staple)>) {
        self.staples.extend(staples);
    }

    /// What is read from now on shows none of those that are out of date; whether there are such.
    pub(super) fn drop_staples(&mut self, now: i64) -> bool {
        let before = self.staples.len();
        self.staples.retain(|_, staple| staple.next_update.is_none_or(|next| next > now));
        self.staples.len() < before
    }

    /// What is to be shown of certificates.
    pub(super) fn views(&self, staples: &Staples) -> Arc<CertificateViews> {
        let entries = self.entries.iter().map(|(name, known)| ("tls", name, &known.certificates));
        let pools = self.upstreams.iter().map(|(name, known)| ("pool", name, &known.certificates));
        let view = |(table, name, shown): (&'static str, &Arc<str>, &Vec<Shown>)| -> Vec<_> {
            shown.iter().map(|one| one.view(table, name, staples)).collect()
        };
        let certificates = entries.chain(pools).flat_map(view).collect();
        let list = |(name, known): (&Arc<str>, &Known<Entry>)| -> Vec<_> {
            let view = |(file, next_update): &(PathBuf, Option<i64>)| RevocationView {
                name: name.clone(),
                file: file.display().to_string(),
                next_update: *next_update,
            };
            known.lists.iter().map(view).collect()
        };
        let revocations = self.entries.iter().flat_map(list).collect();
        Arc::new(CertificateViews { certificates, revocations, servers: self.parts.listeners.clone() })
    }

    /// Keys of tickets, for the next process.
    pub(super) const fn keys(&self) -> &TicketKeys {
        &self.keys
    }

    /// Seals with another key from now on, and still opens what the one before has sealed. Entries that have keys from a
    /// file stay with those.
    ///
    /// # Errors
    /// There is no randomness.
    pub(super) fn rotate(&mut self) -> anyhow::Result<()> {
        self.keys = self.keys.rotated(key()?, KEYS_OPEN);
        for known in self.entries.values().filter(|known| !known.has_own_keys) {
            known.made.tickets().replace(&self.keys).map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }
}

fn is_other<T>(now: &Known<T>, before: Option<&Known<T>>) -> bool {
    before.is_none_or(|before| !Arc::ptr_eq(&now.made, &before.made))
}

/// What there was, where it was made of the very same.
fn known_or<T>(
    before: Option<&Known<T>>,
    material: &Material,
    make: impl FnOnce() -> Result<Known<T>, Misfit>,
) -> Result<Known<T>, Misfit> {
    before.filter(|known| known.digest == material.digest).map_or_else(make, |known| Ok(known.clone()))
}

/// Takes what was made, or what there was, or says why not.
fn keep<T>(
    into: &mut BTreeMap<Arc<str>, Known<T>>,
    before: &BTreeMap<Arc<str>, Known<T>>,
    name: &Arc<str>,
    made: Result<Known<T>, Misfit>,
    mode: Mode,
    misfits: &mut Vec<Misfit>,
) {
    match made {
        Ok(known) => _ = into.insert(name.clone(), known),
        Err(misfit) => {
            misfits.push(misfit);
            if let Some(old) = before.get(name).filter(|_| mode == Mode::KeepOld) {
                into.insert(name.clone(), old.clone());
            }
        }
    }
}

fn key() -> anyhow::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    rand::fill(&mut key).map_err(|_| anyhow::anyhow!("no randomness for keys of tickets"))?;
    Ok(key)
}

/// All of them.
pub(super) fn said(misfits: &[Misfit]) -> String {
    misfits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What is of no use of a config's certificates, and what is to be said of those that are of use: what `lb check` says.
///
/// # Errors
/// There is no randomness.
pub fn check(config: &Config, directory: &Path, file: &Path) -> anyhow::Result<Vec<Problem>> {
    let (loaded, misfits) = Certificates::none(None)?.read(config, directory, Mode::Whole);
    let of =
        |key: String, message: String, severity| Problem { key, severity, ..Problem::of_file(file, message) };
    let misfits = misfits.into_iter().map(|Misfit { at, message }| of(at, message, Severity::Error));
    let now = now_seconds();
    let warned = loaded.views(&Staples::default()).warnings(now).into_iter().filter_map(|warning| {
        let (at, message) = warning.split_once(": ")?;
        Some(of(at.to_owned(), message.to_owned(), Severity::Warning))
    });
    Ok(misfits.chain(warned).collect())
}

/// The first of them, which may have company.
pub(super) fn refusal(misfits: Vec<Misfit>) -> Refusal {
    let mut misfits = misfits.into_iter();
    let first = misfits.next().unwrap_or_else(|| Misfit { at: "tls".to_owned(), message: String::new() });
    let rest: Vec<Misfit> = misfits.collect();
    match rest.is_empty() {
        true => first.into(),
        false => Misfit { message: format!("{}; {}", first.message, said(&rest)), ..first }.into(),
    }
}
