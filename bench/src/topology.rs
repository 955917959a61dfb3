//! Client, subject and backend on one machine, each in a network namespace of its own.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};

use crate::netns::Namespace;

/// How the three are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// Two veth pairs with GRO, as a network card would have it: what arrives was put together by GRO, so that a
    /// splice moves whole pages.
    Veth,
    /// One namespace and its loopback.
    Loopback,
}

/// Who lives in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Subject,
    Backend,
}

/// The wired namespaces; gone when dropped.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) wiring: Wiring,
    /// One for all, or client, subject and backend.
    namespaces: Vec<Namespace>,
}

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 201, 1, 2);
const SUBJECT_FRONT: Ipv4Addr = Ipv4Addr::new(10, 201, 1, 1);
const SUBJECT_BACK: Ipv4Addr = Ipv4Addr::new(10, 201, 2, 1);
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 201, 2, 2);

/// Enough ports for connections that are made and closed all the time; ports in TIME_WAIT are taken again.
const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_local_port_range", "10240 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("core/somaxconn", "16384"),
    ("ipv4/tcp_max_syn_backlog", "16384"),
];

/// Congestion control on every route: under bbr bulk costs twice as much and hides every difference.
pub(crate) const CONGESTION_CONTROL: &str = "cubic";

impl Topology {
    /// Makes it.
    ///
    /// # Errors
    /// Not root, or a tool (`ip`, `ethtool`) is missing.
    pub(crate) fn make(wiring: Wiring) -> Result<Self> {
        let roles: &[&str] = match wiring {
            Wiring::Veth => &["client", "subject", "backend"],
            Wiring::Loopback => &["all"],
        };
        let namespaces: Vec<Namespace> =
            roles.iter().map(|role| Namespace::create(role)).collect::<Result<_>>()?;
        for namespace in &namespaces {
            namespace.settings(SETTINGS)?;
        }
        let this = Self { wiring, namespaces };
        match wiring {
            Wiring::Veth => this.wire()?,
            Wiring::Loopback => this.namespace(Role::Client).ip(&format!(
                "route replace table local local 127.0.0.1 dev lo scope host src 127.0.0.1 congctl {CONGESTION_CONTROL}"
            ))?,
        }
        Ok(this)
    }

    /// Where `role` lives.
    pub(crate) fn namespace(&self, role: Role) -> &Namespace {
        let index = match (self.wiring, role) {
            (Wiring::Loopback, _) | (_, Role::Client) => 0,
            (_, Role::Subject) => 1,
            (_, Role::Backend) => 2,
        };
        &self.namespaces[index]
    }

    /// Where clients find the subject.
    pub(crate) fn subject(&self) -> IpAddr {
        self.either(SUBJECT_FRONT)
    }

    /// Where the subject finds the backend.
    pub(crate) fn backend(&self) -> IpAddr {
        self.either(BACKEND)
    }

    /// Bytes that the backend's interface has sent; `None` where it has none of its own.
    ///
    /// # Errors
    /// The counter cannot be read.
    pub(crate) fn backend_sent_bytes(&self) -> Result<Option<u64>> {
        if self.wiring == Wiring::Loopback {
            return Ok(None);
        }
        // Not /sys: what is seen there is the namespace that mounted it.
        let table = self
            .namespace(Role::Backend)
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?
            .context("net/dev")?;
        sent_bytes(&table, "eth0").map(Some).context("eth0 is not in net/dev")
    }

    fn either(&self, address: Ipv4Addr) -> IpAddr {
        match self.wiring {
            Wiring::Veth => address.into(),
            Wiring::Loopback => Ipv4Addr::LOCALHOST.into(),
        }
    }

    fn wire(&self) -> Result<()> {
        let [client, subject, backend] = &self.namespaces[..] else { return Ok(()) };
        for (outer, inner, outer_address, inner_address) in
            [(client, "front", CLIENT, SUBJECT_FRONT), (backend, "back", BACKEND, SUBJECT_BACK)]
        {
            outer.ip(&format!("link add eth0 type veth peer name {inner} netns {}", subject.name()))?;
            for (namespace, device, address) in
                [(outer, "eth0", outer_address), (subject, inner, inner_address)]
            {
                namespace.ip(&format!("address add {address}/24 dev {device}\nlink set {device} up"))?;
                let output = namespace.command("ethtool").args(["-K", device, "gro", "on"]).output()?;
                ensure!(
                    output.status.success(),
                    "ethtool: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                let [a, b, c, _] = address.octets();
                namespace.ip(&format!(
                    "route replace {a}.{b}.{c}.0/24 dev {device} src {address} congctl {CONGESTION_CONTROL}"
                ))?;
            }
        }
        Ok(())
    }
}

/// Ninth column of `/proc/net/dev`, after the name.
fn sent_bytes(table: &str, device: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
    line.split_whitespace().nth(8)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_bytes_are_the_ninth_number() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10\n  eth0: 11 12 13 14 15 16 17 18 19 20\n";
        assert_eq!(sent_bytes(table, "eth0"), Some(19));
        assert_eq!(sent_bytes(table, "eth1"), None);
    }
}
