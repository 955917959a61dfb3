//! A scenario's set: namespaces, backend and subjects, all running; and a measured run of requests through one.

use std::{collections::HashMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    backend::{Body, HttpBackend},
    check::Ledger,
    context::Context,
    http2_backend::Http2Backend,
    load::{self, Closed, Load, Speaks, TcpBackend},
    measure::{Cost, Reading, open_files_max},
    named::Named,
    peers::{Logging, Protocol, Running, Settings, Subject},
    process::Pinned,
    system::cores_online,
    topology::{Role, Topology, Wiring},
};

/// First port of the subjects; each has one of its own.
const PORT: u16 = 18_081;
const BACKEND_PORT: u16 = 18_080;
/// A run that takes so much longer than planned is stuck.
const GRACE: Duration = Duration::from_secs(30);

/// Who runs where. The subject has its cores to itself; client and backend share what is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) subject: Vec<usize>,
    pub(crate) load: Vec<usize>,
}

impl Cores {
    /// With `workers` cores for the subject. Where that leaves none, load and backend share its last one: then
    /// only CPU time can be compared.
    ///
    /// # Errors
    /// The machine has fewer cores than that, or only one.
    pub(crate) fn split(workers: usize, all: usize) -> Result<Self> {
        ensure!(all > 1 && workers <= all, "{workers} workers and a load generator on {all} cores");
        let first = if workers == all { all - 1 } else { workers };
        Ok(Self { subject: (0..workers).collect(), load: (first..all).collect() })
    }
}

/// Files that a process has open besides its connections, pipes and connections on their way out included.
const OTHER_FILES: usize = 2000;

/// Client connections that every subject can take under the limit on open files. Each may have an upstream one
/// beside it, and a proxy that knows its limit refuses more than that (lb does).
pub(crate) fn connections_max() -> usize {
    open_files_max().saturating_sub(OTHER_FILES) / 2
}

/// What the set is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) protocol: Protocol,
    pub(crate) logging: Logging,
    pub(crate) workers: usize,
    /// Client connections that must fit.
    pub(crate) connections: usize,
}

/// One worker, no logs, up to 1 000 connections.
pub(crate) const HTTP: Plan =
    Plan { protocol: Protocol::Http, logging: Logging::Off, workers: 1, connections: 1000 };
/// The same over TLS with clients.
pub(crate) const TLS: Plan = Plan { protocol: Protocol::Tls, ..HTTP };
/// The same for bytes.
pub(crate) const TCP: Plan = Plan { protocol: Protocol::Tcp, ..HTTP };

#[derive(Debug)]
enum Backend {
    Http(HttpBackend),
    Http2(Http2Backend),
    Tcp(TcpBackend),
}

/// The set; taken down when dropped, in this order.
#[derive(Debug)]
pub(crate) struct Stage {
    running: Vec<Running>,
    backend: Backend,
    pub(crate) cores: Cores,
    protocol: Protocol,
    /// Requests per second of a subject, by what is asked for: how many fill a sample.
    rates: HashMap<String, f64>,
    /// Requests that a subject has answered so far, by its name.
    answered: HashMap<String, u64>,
    topology: Topology,
}

impl Stage {
    /// Makes namespaces, starts the backend and the context's subjects. One that does not come up is named in the
    /// notes.
    ///
    /// # Errors
    /// No namespaces, no backend, or no subject at all.
    pub(crate) fn set(context: &mut Context<'_>, plan: Plan) -> Result<Self> {
        Self::set_over(context, plan, context.wiring)
    }

    /// The same over a wiring of its own.
    ///
    /// # Errors
    /// As [`Stage::set`].
    pub(crate) fn set_over(context: &mut Context<'_>, plan: Plan, wiring: Wiring) -> Result<Self> {
        let (this, failures) = Self::open(plan, wiring, context.directory, &context.subjects)?;
        for failure in failures {
            context.samples.note(failure);
        }
        Ok(this)
    }

    /// The same for these subjects; also says which do not come up, and why. One that cannot do what is planned is
    /// passed over.
    ///
    /// # Errors
    /// As [`Stage::set`].
    pub(crate) fn open(
        plan: Plan,
        wiring: Wiring,
        directory: &Path,
        subjects: &[Subject],
    ) -> Result<(Self, Vec<String>)> {
        let cores = Cores::split(plan.workers, cores_online())?;
        let topology = Topology::make(wiring)?;
        let address = SocketAddr::new(topology.backend(), BACKEND_PORT);
        let backend = match plan.protocol {
            Protocol::Http2 => {
                Backend::Http2(Http2Backend::start(topology.namespace(Role::Backend), address, &cores.load)?)
            }
            Protocol::Http | Protocol::Tls | Protocol::H2c => {
                Backend::Http(HttpBackend::start(&topology, address, &cores.load, directory)?)
            }
            Protocol::Tcp => {
                Backend::Tcp(TcpBackend::start(topology.namespace(Role::Backend), address, &cores.load)?)
            }
        };
        let mut failures = Vec::new();
        let mut this = Self {
            running: Vec::new(),
            backend,
            cores,
            protocol: plan.protocol,
            rates: HashMap::new(),
            answered: HashMap::new(),
            topology,
        };
        for (port, &subject) in (PORT..).zip(subjects) {
            let settings = Settings {
                protocol: plan.protocol,
                logging: plan.logging,
                listen: SocketAddr::new(this.topology.subject(), port),
                backend: address,
                cores: this.cores.subject.clone(),
                connections: plan.connections,
            };
            if !settings.suit(subject) {
                continue;
            }
            match Running::start(subject, &settings, &this.topology, directory) {
                Ok(running) => this.running.push(running),
                Err(error) => {
                    crate::interrupt::check_interrupted()?;
                    failures.push(format!("{} does not start: {error:#}", subject.name()));
                }
            }
        }
        ensure!(!this.running.is_empty(), "no subject runs: {}", failures.join("; "));
        Ok((this, failures))
    }

    /// The subjects that run.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        self.running.iter().map(|running| running.subject).collect()
    }

    /// A running subject.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn running(&self, subject: Subject) -> Result<&Running> {
        let found = self.running.iter().find(|running| running.subject == subject);
        found.with_context(|| format!("{} does not run", subject.name()))
    }

    /// The same, to be changed.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn running_mut(&mut self, subject: Subject) -> Result<&mut Running> {
        let found = self.running.iter_mut().find(|running| running.subject == subject);
        found.with_context(|| format!("{} does not run", subject.name()))
    }

    /// Where load comes from.
    pub(crate) fn client(&self) -> Pinned<'_> {
        Pinned { namespace: self.topology.namespace(Role::Client), cores: &self.cores.load }
    }

    /// The TCP backend.
    ///
    /// # Errors
    /// This set has another.
    pub(crate) fn tcp_backend(&self) -> Result<&TcpBackend> {
        match &self.backend {
            Backend::Tcp(backend) => Ok(backend),
            Backend::Http(_) | Backend::Http2(_) => bail!("the backend speaks HTTP"),
        }
    }

    /// Requests that the backend has taken; asking counts as one.
    ///
    /// # Errors
    /// It does not answer, or speaks no HTTP.
    pub(crate) fn requests_seen(&self) -> Result<u64> {
        match &self.backend {
            Backend::Http(backend) => backend.requests(&self.topology),
            Backend::Http2(backend) => Ok(backend.requests()),
            Backend::Tcp(_) => bail!("the backend speaks no HTTP"),
        }
    }

    /// The subject's counters now.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn reading(&self, subject: Subject) -> Result<Reading> {
        Reading::take(self.running(subject)?.pid(), &self.cores.subject)
    }

    /// Requests that a subject has answered so far, in valid runs.
    pub(crate) fn answered(&self, subject: Subject) -> u64 {
        self.answered.get(&subject.name()).copied().unwrap_or(0)
    }

    /// URL of a body through a subject.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn url(&self, subject: Subject, body: Body) -> Result<String> {
        let scheme = if self.protocol == Protocol::Tls { "https" } else { "http" };
        Ok(format!("{scheme}://{}{}", self.running(subject)?.address, body.path))
    }

    /// Runs a closed loop for about `length` through a subject, and checks that all counters agree.
    ///
    /// The number of requests is what fills that time at the rate seen last; the first time that is found out by
    /// a short run, which warms everything up too.
    ///
    /// # Errors
    /// The generator fails, or the run is void.
    pub(crate) fn requests(
        &mut self,
        subject: Subject,
        load: Requests,
        length: Duration,
    ) -> Result<(Load, Cost)> {
        let key = format!("{} {load:?}", subject.name());
        let rate = match self.rates.get(&key) {
            Some(&rate) => rate,
            None => self.run(subject, load, load.least())?.0.rate(),
        };
        let wanted = (rate * length.as_secs_f64()) as u64;
        let (found, cost) = self.run(subject, load, wanted.max(load.least()))?;
        self.rates.insert(key, found.rate());
        Ok((found, cost))
    }

    /// Runs a closed loop of this many requests, and checks that all counters agree.
    ///
    /// # Errors
    /// The generator fails, or the run is void.
    pub(crate) fn run(&mut self, subject: Subject, load: Requests, requests: u64) -> Result<(Load, Cost)> {
        let closed = Closed {
            url: self.url(subject, load.body)?,
            connections: load.connections,
            requests,
            churn: load.churn,
            speaks: load.speaks,
            time_max: GRACE,
        };
        let (seen, sent_bytes) = (self.requests_seen()?, self.topology.backend_sent_bytes()?);
        let before = self.reading(subject)?;
        let found = load::closed_loop(self.client(), &closed)?;
        let cost = self.reading(subject)?.since(&before);
        let backend_bytes = match (sent_bytes, self.topology.backend_sent_bytes()?) {
            (Some(before), Some(after)) => Some(after - before),
            _ => None,
        };
        let ledger = Ledger {
            asked: requests,
            sent: found.sent,
            answered: found.answered,
            seen: self.requests_seen()? - seen - 1,
            body_len: load.body.len,
            body_bytes: found.body_bytes,
            backend_bytes,
        };
        ledger.balance()?;
        *self.answered.entry(subject.name()).or_default() += found.answered;
        Ok((found, cost))
    }
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requests {
    pub(crate) body: Body,
    pub(crate) connections: usize,
    /// Whether each request has a connection of its own.
    pub(crate) churn: bool,
    pub(crate) speaks: Speaks,
}

impl Requests {
    /// The least that says something: each connection several times.
    fn least(&self) -> u64 {
        self.connections as u64 * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_their_cores_to_themselves_where_there_are_enough() {
        let split = |workers, all| Cores::split(workers, all).unwrap();
        assert_eq!(split(1, 2), Cores { subject: vec![0], load: vec![1] });
        assert_eq!(split(2, 2), Cores { subject: vec![0, 1], load: vec![1] });
        assert_eq!(split(2, 6), Cores { subject: vec![0, 1], load: vec![2, 3, 4, 5] });
        assert!(Cores::split(1, 1).is_err());
        assert!(Cores::split(3, 2).is_err());
    }
}
