//! Keeps names of backends looked up.
//!
//! Nothing here waits but for the first answers; each lookup blocks a short-lived thread of its own, of which there are at most
//! [`LOOKUPS_MAX`] at a time. `/etc/hosts` and `/etc/resolv.conf` are read anew for each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::ask::ask;
use crate::{
    admin::NameView,
    config::{Answers, Config, Dns},
    model::BackendName,
    names::{Condition, Denial, Failure, Outcome, Policy, Watch, find, hosts},
};

/// Lookups at a time.
const LOOKUPS_MAX: usize = 16;
/// How long the start waits for the first answers; who is not found by then has no backends yet.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);
/// Until it is looked again whether something is due, where nothing ends meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// Least of that: a thread may be refused for what is due.
const PAUSE: Duration = Duration::from_millis(50);
/// Most that is read of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All names of a config.
#[derive(Clone)]
pub(super) struct Names {
    dns: Arc<Dns>,
    names: BTreeMap<BackendName, Name>,
    ended: (flume::Sender<Ended>, flume::Receiver<Ended>),
    seed: u64,
}

#[derive(Clone)]
struct Name {
    watch: Watch,
    pools: BTreeSet<Arc<str>>,
    is_running: bool,
    lookups: BTreeMap<&'static str, u64>,
}

pub(super) type Ended = (BackendName, Outcome);

impl Names {
    /// None is looked up yet.
    pub(super) fn of(config: &Config, seed: u64) -> Self {
        let none = Self {
            dns: Arc::new(config.dns.clone()),
            names: BTreeMap::new(),
            ended: flume::unbounded(),
            seed,
        };
        none.changed(config)
    }

    /// Those of another config; names that both have are as they were, unless `[dns]` is another one.
    pub(super) fn changed(&self, config: &Config) -> Self {
        let Dns { ttl_min, ttl_max, hold, .. } = config.dns;
        let (policy, now) = (Policy { ttl_min, ttl_max, hold }, Instant::now());
        let is_same = *self.dns == config.dns;
        // Each way to end is counted from the start.
        let ends = Failure::ALL
            .map(Failure::name)
            .into_iter()
            .chain([Denial::NoName, Denial::NoRecord].map(Denial::name));
        let lookups: BTreeMap<_, _> = ends.chain([Condition::Good.name()]).map(|end| (end, 0)).collect();
        let name = |(of, pools): (BackendName, BTreeSet<Arc<str>>)| {
            let made = match self.names.get(&of).filter(|_| is_same) {
                Some(known) => Name { pools, ..known.clone() },
                None => Name {
                    watch: Watch::new(policy, now),
                    pools,
                    is_running: false,
                    lookups: lookups.clone(),
                },
            };
            (of, made)
        };
        let names = config.backend_names().into_iter().map(name).collect();
        Self { dns: Arc::new(config.dns.clone()), names, ended: self.ended.clone(), seed: self.seed }
    }

    /// Looks all of them up once, but waits no longer than the start should.
    pub(super) fn look_up_first(&mut self) {
        let deadline = Instant::now() + FIRST_PATIENCE;
        while self.names.values().any(|name| name.watch.condition() == Condition::Unasked) {
            self.begin(Instant::now());
            let Ok(ended) = self.ended.1.recv_deadline(deadline) else { return };
            self.end(ended);
        }
    }

    /// What they stand for.
    pub(super) fn answers(&self) -> Answers {
        self.names.iter().map(|(name, of)| (name.clone(), of.watch.backends().to_vec())).collect()
    }

    /// How they stand.
    pub(super) fn show(&self) -> Arc<[NameView]> {
        let show = |(name, of): (&BackendName, &Name)| NameView {
            name: name.to_string(),
            pools: of.pools.iter().cloned().collect(),
            condition: of.watch.condition(),
            backends: of.watch.backends().to_vec(),
            answered: of.watch.answered(),
            due: of.watch.poll_timeout(),
            lookups: of.lookups.iter().map(|(end, count)| (*end, *count)).collect(),
        };
        self.names.iter().map(show).collect()
    }

    /// Lookups that have ended.
    pub(super) fn ended(&self) -> flume::Receiver<Ended> {
        self.ended.1.clone()
    }

    /// Until [`Self::begin`] should be called again.
    pub(super) fn wait(&self) -> Duration {
        let idle = self.names.values().filter(|name| !name.is_running);
        let due = idle.map(|name| name.watch.poll_timeout()).min().filter(|_| self.running() < LOOKUPS_MAX);
        due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now())).max(PAUSE)
    }

    fn running(&self) -> usize {
        self.names.values().filter(|name| name.is_running).count()
    }

    /// Begins what is due.
    pub(super) fn begin(&mut self, now: Instant) {
        let mut running = self.running();
        for (name, of) in &mut self.names {
            if of.is_running || of.watch.poll_timeout() > now || running >= LOOKUPS_MAX {
                continue;
            }
            let (dns, ended, name) = (self.dns.clone(), self.ended.0.clone(), name.clone());
            let look_up = move || {
                let outcome = look_up(&name, &dns);
                // The receiver lives as long as the process.
                _ = ended.send((name, outcome));
            };
            match thread::Builder::new().name("lb-lookup".into()).spawn(look_up) {
                Ok(_) => {
                    of.is_running = true;
                    running += 1;
                }
                // It stays due, and is tried when the next lookup ends or the wait does.
                Err(error) => tracing::warn!(%error, "no thread for a DNS lookup"),
            }
        }
    }

    /// Takes in what came of a lookup; whether the answer is another one. Says what an operator would act on, once.
    pub(super) fn end(&mut self, (name, outcome): Ended) -> bool {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let Some(of) = self.names.get_mut(&name) else { return false };
        of.is_running = false;
        let had = of.watch.backends().len();
        let change = of.watch.handle(outcome, Instant::now(), self.seed >> 33);
        let (backends, condition) = (of.watch.backends().len(), of.watch.condition());
        *of.lookups.entry(condition.name()).or_default() += 1;
        let why = condition.name();
        match condition {
            _ if change.backends && backends == 0 => {
                tracing::error!(%name, why, "the name stands for nothing any more: its backends are taken away");
            }
            Condition::Good if change.backends => tracing::info!(%name, backends, "the name was resolved"),
            Condition::Good if change.condition => tracing::info!(%name, backends, "the name resolves again"),
            _ if change.condition && had > 0 => {
                tracing::warn!(%name, why, backends, "the name was not resolved: the last good answer is kept");
            }
            _ if change.condition => tracing::warn!(%name, why, "the name was not resolved"),
            _ => {}
        }
        change.backends
    }
}

/// What a name stands for. Blocks.
pub(super) fn look_up(name: &BackendName, dns: &Dns) -> Outcome {
    let servers = match dns.servers.is_empty() {
        true => hosts::servers(&text_of("/etc/resolv.conf")),
        false => dns.servers.clone(),
    };
    find(name, dns.families, &text_of("/etc/hosts"), |question| {
        ask(&servers, dns.attempts, dns.timeout, question)
    })
}

/// What is not there, or no text, says nothing.
fn text_of(path: &str) -> String {
    let mut text = String::new();
    _ = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    text
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use super::*;
    use crate::config::parse;

    /// A server that knows an address of the names of the form `x.internal` whose letter it knows, and nothing else.
    pub(in crate::control) fn server(is_known: impl Fn(u8) -> bool + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            loop {
                let (_, from) = socket.recv_from(&mut buffer).unwrap();
                let mut out = buffer[..12 + 12 + 4].to_vec();
                (out[2], out[3], out[11]) = (0x81, 0x80, 0);
                match is_known(buffer[13]) {
                    true => {
                        out[7] = 1;
                        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 0, 0, 1]);
                    }
                    false => out[3] |= 3,
                }
                socket.send_to(&out, from).unwrap();
            }
        });
        server
    }

    #[test]
    fn answers_change_when_a_server_says_so() {
        let (known, is_known) = flume::unbounded::<()>();
        let server = server(move |name| name == b'a' && !is_known.is_empty());
        let config = format!(
            "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\npool = \"p\"\n[dns]\nservers = [\"{server}\"]\n\
             families = [\"ipv4\"]\n[pool.p]\nbackends = [\"a.internal:80\", \"b.internal:80\"]\n"
        );
        let config = parse("f", &config).unwrap().config;
        let mut names = Names::of(&config, 1);
        names.look_up_first();
        assert!(names.answers().values().all(Vec::is_empty));
        let conditions: Vec<_> = names.show().iter().map(|name| name.condition).collect();
        assert_eq!(conditions, [Condition::Denied(Denial::NoName); 2]);
        known.send(()).unwrap();
        let (ended, deadline) = (names.ended(), Instant::now() + Duration::from_secs(20));
        loop {
            names.begin(Instant::now());
            let Ok(next) = ended.recv_timeout(names.wait()) else { continue };
            if names.end(next) {
                break;
            }
            assert!(Instant::now() < deadline, "no answer changes");
        }
        assert_eq!(names.answers().values().map(Vec::len).sum::<usize>(), 1);
        assert_eq!(
            names.changed(&config).answers(),
            names.answers(),
            "a config with the same names keeps them"
        );
    }
}
