//! One lookup: from a name to backends, by as many questions as it takes.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{
    answer::{Denial, Failure},
    hosts,
    wire::{Kind, Question, Reply, Service},
};
use crate::{
    config::Families,
    model::{BackendName, DomainName, FoundBackend},
};

/// Most hosts of one service that are asked for.
const TARGETS_MAX: usize = 64;
/// Most backends that one name stands for; of more the first in the order of their addresses are taken.
pub const BACKENDS_MAX: usize = 256;
/// How long what stands in `/etc/hosts` holds.
const HOSTS_TTL: Duration = Duration::from_secs(5);
/// Greatest weight of a backend.
const WEIGHT_MAX: u32 = 1000;

/// What came of a lookup.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The backends, sorted, each address once, at most [`BACKENDS_MAX`].
    Found {
        /// At least one.
        backends: Vec<FoundBackend>,
        /// For how long.
        ttl: Duration,
        /// Some of it could not be had, and why.
        lacks: Option<Failure>,
    },
    /// There are none, and for how long that holds where it is said.
    Denied(Denial, Option<Duration>),
    /// Nobody knows.
    Failed(Failure),
}

/// Looks a name up: in the text of `/etc/hosts`, else by questions that `ask` has answered by some server.
pub fn find(
    name: &BackendName,
    families: Families,
    hosts: &str,
    mut ask: impl FnMut(&Question) -> Result<Reply, Failure>,
) -> Outcome {
    let mut gathered = Gathered::default();
    match name {
        BackendName::Host(host, port) => {
            let found = |address| FoundBackend { address, weight: None, backup: false };
            gathered.host(host, families, hosts, &mut ask, |ip| found(SocketAddr::new(ip, *port)));
        }
        BackendName::Service(service) => match ask(&Question { name: service.clone(), kind: Kind::Srv }) {
            Ok(Reply::Services(services, ttl)) => {
                gathered.holds(ttl);
                for Service { priority, weight, port, target } in ranked(services) {
                    let found =
                        |address| FoundBackend { address, weight: Some(weight), backup: priority > 0 };
                    gathered.host(&target, families, hosts, &mut ask, |ip| found(SocketAddr::new(ip, port)));
                }
            }
            Ok(Reply::Nothing(denial, ttl)) => gathered.denied = Some((denial, ttl)),
            Ok(Reply::Failed(failure)) | Err(failure) => gathered.failure = Some(failure),
            Ok(Reply::Addresses(..) | Reply::Truncated) => gathered.failure = Some(Failure::Malformed),
        },
    }
    gathered.outcome()
}

/// The records as we rank backends: priority 0 for the lowest one and 1 for all behind it, weights from 1 to 1000.
fn ranked(mut services: Vec<Service>) -> Vec<Service> {
    let first = services.iter().map(|service| service.priority).min().unwrap_or(0);
    services.truncate(TARGETS_MAX);
    let mut greatest = BTreeMap::<u16, (u32, bool)>::new();
    for Service { priority, weight, .. } in &mut services {
        *priority = u16::from(*priority != first);
        let (most, has_zero) = greatest.entry(*priority).or_default();
        *most = (*most).max(u32::from(*weight));
        *has_zero |= *weight == 0;
    }
    for Service { priority, weight, .. } in &mut services {
        let (most, has_zero) = greatest.get(priority).copied().unwrap_or_default();
        // Beside others, 0 has a very small share (RFC 2782): so small that the others' must be large.
        *weight = match most {
            0 => 1,
            most if has_zero || most > WEIGHT_MAX => (u32::from(*weight) * WEIGHT_MAX / most).max(1) as u16,
            _ => *weight,
        };
    }
    services
}

/// What the questions of one lookup brought.
#[derive(Default)]
struct Gathered {
    /// By address: who is listed twice is as good as it is at its best.
    backends: BTreeMap<SocketAddr, FoundBackend>,
    ttl: Option<Duration>,
    denied: Option<(Denial, Option<Duration>)>,
    failure: Option<Failure>,
}

impl Gathered {
    fn holds(&mut self, ttl: Duration) {
        self.ttl = Some(self.ttl.map_or(ttl, |other| other.min(ttl)));
    }

    fn add(&mut self, found: FoundBackend) {
        let known = self.backends.entry(found.address).or_insert(found);
        if known.backup && !found.backup {
            *known = found;
        }
    }

    fn host(
        &mut self,
        host: &DomainName,
        families: Families,
        hosts: &str,
        ask: &mut impl FnMut(&Question) -> Result<Reply, Failure>,
        found: impl Fn(std::net::IpAddr) -> FoundBackend,
    ) {
        let mut listed = hosts::addresses(hosts, host);
        listed.retain(|ip| if ip.is_ipv4() { families.v4 } else { families.v6 });
        if !listed.is_empty() {
            self.holds(HOSTS_TTL);
            return listed.into_iter().for_each(|ip| self.add(found(ip)));
        }
        for (kind, is_wanted) in [(Kind::A, families.v4), (Kind::Aaaa, families.v6)] {
            if !is_wanted {
                continue;
            }
            match ask(&Question { name: host.clone(), kind }) {
                Ok(Reply::Addresses(ips, ttl)) => {
                    self.holds(ttl);
                    ips.into_iter().for_each(|ip| self.add(found(ip)));
                }
                Ok(Reply::Nothing(denial, ttl)) => {
                    self.denied = Some((denial, ttl));
                    // Then it has nothing of the other family either.
                    if denial == Denial::NoName {
                        return;
                    }
                }
                Ok(Reply::Failed(failure)) | Err(failure) => self.failure = Some(failure),
                Ok(Reply::Services(..) | Reply::Truncated) => self.failure = Some(Failure::Malformed),
            }
        }
    }

    fn outcome(self) -> Outcome {
        let Self { backends, ttl, denied, failure } = self;
        let mut backends: Vec<_> = backends.into_values().collect();
        backends.truncate(BACKENDS_MAX);
        match (backends.is_empty(), failure, denied) {
            (false, lacks, _) => Outcome::Found { backends, ttl: ttl.unwrap_or_default(), lacks },
            (true, Some(failure), _) => Outcome::Failed(failure),
            (true, None, Some((denial, ttl))) => Outcome::Denied(denial, ttl),
            (true, None, None) => Outcome::Denied(Denial::NoRecord, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const BOTH: Families = Families { v4: true, v6: true };
    const TTL: Duration = Duration::from_secs(60);

    fn host(name: &str) -> BackendName {
        BackendName::Host(DomainName::new(name).unwrap(), 80)
    }

    fn addresses(list: &[&str]) -> Result<Reply, Failure> {
        Ok(Reply::Addresses(list.iter().map(|ip| ip.parse().unwrap()).collect(), TTL))
    }

    fn found(outcome: &Outcome) -> Vec<String> {
        let Outcome::Found { backends, .. } = outcome else { panic!("{outcome:?}") };
        let show = |b: &FoundBackend| {
            let weight = b.weight.map_or(String::new(), |weight| format!(" {weight}"));
            format!("{}{weight}{}", b.address, if b.backup { " backup" } else { "" })
        };
        backends.iter().map(show).collect()
    }

    #[test]
    fn both_families_are_backends_in_a_stable_order() {
        let outcome = find(&host("a"), BOTH, "", |question| match question.kind {
            Kind::A => addresses(&["10.0.0.2", "10.0.0.1", "10.0.0.2"]),
            _ => Ok(Reply::Addresses(vec!["fd00::1".parse().unwrap()], Duration::from_secs(9))),
        });
        assert_eq!(found(&outcome), ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"]);
        assert!(matches!(outcome, Outcome::Found { ttl, lacks: None, .. } if ttl == Duration::from_secs(9)));
        let one = find(&host("a"), Families { v4: true, v6: false }, "", |question| {
            assert_eq!(question.kind, Kind::A);
            addresses(&["10.0.0.1"])
        });
        assert_eq!(found(&one), ["10.0.0.1:80"]);
    }

    #[test]
    fn a_family_that_fails_is_lacking() {
        let half = |question: &Question| match question.kind {
            Kind::A => addresses(&["10.0.0.1"]),
            _ => Err(Failure::TimedOut),
        };
        let outcome = find(&host("a"), BOTH, "", half);
        assert!(matches!(outcome, Outcome::Found { lacks: Some(Failure::TimedOut), .. }), "{outcome:?}");
        let none = Ok(Reply::Nothing(Denial::NoRecord, None));
        let outcome = find(&host("a"), BOTH, "", |question| match question.kind {
            Kind::A => none.clone(),
            _ => Ok(Reply::Failed(Failure::ServerFailed)),
        });
        assert_eq!(outcome, Outcome::Failed(Failure::ServerFailed), "nothing is known of the other family");
        assert_eq!(find(&host("a"), BOTH, "", |_| none.clone()), Outcome::Denied(Denial::NoRecord, None));
    }

    #[test]
    fn a_name_that_is_not_there_is_asked_once() {
        let mut asked = 0;
        let outcome = find(&host("a"), BOTH, "", |_| {
            asked += 1;
            Ok(Reply::Nothing(Denial::NoName, Some(TTL)))
        });
        assert_eq!((outcome, asked), (Outcome::Denied(Denial::NoName, Some(TTL)), 1));
    }

    #[test]
    fn the_hosts_file_comes_first() {
        let hosts = "10.0.0.9 a\nfd00::9 a\n";
        let outcome = find(&host("a"), BOTH, hosts, |_| panic!("asked"));
        assert_eq!(found(&outcome), ["10.0.0.9:80", "[fd00::9]:80"]);
        let outcome =
            find(&host("a"), Families { v4: false, v6: true }, "10.0.0.9 a", |_| addresses(&["fd00::1"]));
        assert_eq!(found(&outcome), ["[fd00::1]:80"]);
    }

    fn service(records: &[(u16, u16, u16, &str)]) -> Vec<String> {
        let services = records.iter().map(|(priority, weight, port, target)| Service {
            priority: *priority,
            weight: *weight,
            port: *port,
            target: DomainName::new(target).unwrap(),
        });
        let services: Vec<_> = services.collect();
        let name = BackendName::Service(DomainName::new("_http._tcp.a").unwrap());
        let outcome = find(&name, Families { v4: true, v6: false }, "", |question| match question.kind {
            Kind::Srv => Ok(Reply::Services(services.clone(), TTL)),
            _ => {
                let last = question.name.as_str().strip_prefix('h').unwrap().parse().unwrap();
                Ok(Reply::Addresses(vec![IpAddr::from([10, 0, 0, last])], TTL))
            }
        });
        found(&outcome)
    }

    #[test]
    fn services_say_port_weight_and_who_comes_first() {
        assert_eq!(
            service(&[(10, 3, 81, "h1"), (10, 1, 82, "h2"), (20, 5, 83, "h3"), (30, 5, 84, "h3")]),
            ["10.0.0.1:81 3", "10.0.0.2:82 1", "10.0.0.3:83 5 backup", "10.0.0.3:84 5 backup"]
        );
        assert_eq!(service(&[(0, 0, 1, "h1"), (0, 0, 1, "h2")]), ["10.0.0.1:1 1", "10.0.0.2:1 1"]);
        assert_eq!(service(&[(0, 0, 1, "h1"), (0, 5, 1, "h2")]), ["10.0.0.1:1 1", "10.0.0.2:1 1000"]);
        assert_eq!(service(&[(0, 65535, 1, "h1"), (0, 100, 1, "h2")]), ["10.0.0.1:1 1000", "10.0.0.2:1 1"]);
        assert_eq!(
            service(&[(9, 2, 1, "h1"), (1, 2, 1, "h1")]),
            ["10.0.0.1:1 2"],
            "once, and as good as it can be"
        );
    }

    #[test]
    fn thousands_are_bounded() {
        let outcome = find(&host("a"), BOTH, "", |_| {
            let of = |at: u16| IpAddr::from([10, 0, (at >> 8) as u8, at as u8]);
            Ok(Reply::Addresses((0..5000).rev().map(of).collect(), TTL))
        });
        let found = found(&outcome);
        assert_eq!((found.len(), &*found[1]), (BACKENDS_MAX, "10.0.0.1:80"), "always the same ones");
    }
}
