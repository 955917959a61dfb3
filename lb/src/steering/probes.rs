//! Health probes that go the way of a VIP's traffic: `lb_probe_out` and `lb_probe_in`, and what they are told.
//!
//! Both hang on traffic control: by a link where the kernel has tcx (6.6), else by a filter of a clsact queue. A link
//! goes with the process, a filter does not: it stays, without effect (nobody sends with the mark), until the next
//! start or `lb detach`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{
        ProgramError, TcAttachType,
        tc::{TcError, qdisc_add_clsact, qdisc_detach_program},
    },
};
use lb_abi::{
    bounds::PROBES_MAX,
    names,
    probe::{PROBE_IPIP, PROBE_MARK, ProbeEntry, port_index},
};

use super::{
    error::{Error, Result},
    loader,
    maps::typed,
    netlink,
    terms::mapped,
};

const PROGRAMS: [(&str, TcAttachType); 2] =
    [(names::PROGRAM_PROBE_OUT, TcAttachType::Egress), (names::PROGRAM_PROBE_IN, TcAttachType::Ingress)];

/// One probe's way. Addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeWay {
    /// Below [`PROBES_MAX`], not given to two probes.
    pub number: u16,
    /// Where the packets seem to go.
    pub vip: IpAddr,
    /// Where they go.
    pub backend: IpAddr,
    /// Source of the outer header; `None`: there is none (l2dsr).
    pub outer: Option<IpAddr>,
}

/// Says which probe expects an answer on which port. The prober's own.
pub struct ProbePorts(Array<MapData, u32>);

impl ProbePorts {
    /// What a socket must be marked with (SO_MARK) for its packets to go the way of probe `number`.
    pub fn mark(number: u16) -> u32 {
        PROBE_MARK | u32::from(number)
    }

    /// Before a socket on local port `port` (of UDP, else of TCP) connects.
    ///
    /// # Errors
    /// The map that refused.
    pub fn expect(&mut self, port: u16, is_udp: bool, number: u16) -> Result<()> {
        self.set(port, is_udp, u32::from(number) + 1)
    }

    /// Once that socket is closed.
    ///
    /// # Errors
    /// The map that refused.
    pub fn forget(&mut self, port: u16, is_udp: bool) -> Result<()> {
        self.set(port, is_udp, 0)
    }

    fn set(&mut self, port: u16, is_udp: bool, value: u32) -> Result<()> {
        self.0.set(port_index(port, is_udp), value, 0).map_err(Error::map(names::MAP_PROBE_PORTS))
    }
}

/// Which way each probe goes, once that is open.
pub(super) struct Ways {
    entries: Array<MapData, ProbeEntry>,
    interfaces: BTreeSet<String>,
}

/// Opens the way: no program hangs anywhere yet, and no probe has one.
pub(super) fn open(object: &mut Ebpf) -> Result<(Ways, ProbePorts)> {
    let entries = typed(object, names::MAP_PROBES)?;
    let ports = typed(object, names::MAP_PROBE_PORTS)?;
    Ok((Ways { entries, interfaces: BTreeSet::new() }, ProbePorts(ports)))
}

impl Ways {
    /// Interfaces that carry the programs; `attached` are those that packets are forwarded on.
    pub(super) fn interfaces<T>(&self, attached: &BTreeMap<String, T>) -> Vec<String> {
        self.interfaces.iter().chain(attached.keys()).collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// Writes the ways and hangs the programs on `interfaces` and wherever the backends are routed to.
    pub(super) fn put(&mut self, object: &mut Ebpf, interfaces: &[&str], ways: &[ProbeWay]) -> Result<()> {
        for way in ways {
            let (number, max) = (u32::from(way.number), PROBES_MAX);
            if number >= max {
                return Err(Error::Bounds {
                    what: "health probes",
                    is: way.number.into(),
                    max: max as usize,
                });
            }
            self.entries.set(number, entry(way), 0).map_err(Error::map(names::MAP_PROBES))?;
        }
        let mut names: BTreeSet<String> = interfaces.iter().map(|&name| name.to_owned()).collect();
        names.extend(ways_out(ways)?);
        names.difference(&self.interfaces).try_for_each(|interface| attach(object, interface))?;
        self.interfaces.extend(names);
        Ok(())
    }
}

/// Hangs both programs on an interface.
pub(super) fn attach(object: &mut Ebpf, interface: &str) -> Result<()> {
    hang(object, interface, false)
}

/// Hangs them there again, where another process may have hung its own in the place of filters. Links are each
/// process's own: ours are there still.
pub(super) fn put_back(object: &mut Ebpf, interface: &str) -> Result<()> {
    hang(object, interface, true)
}

fn hang(object: &mut Ebpf, interface: &str, may_be_there: bool) -> Result<()> {
    // EEXIST: the queue is there. Without the module it is refused here, and so are the filters below.
    let _ = qdisc_add_clsact(interface);
    for (name, direction) in PROGRAMS {
        remove(interface, direction, name)?;
        let program = loader::classifier(object, name)?;
        match program.attach(interface, direction) {
            Ok(_) => {}
            Err(ProgramError::SyscallError(error))
                if may_be_there && error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                let action = format!("attach {name} to interface {interface}");
                return Err(Error::Program { action, source: Box::new(source) });
            }
        }
    }
    Ok(())
}

fn entry(way: &ProbeWay) -> ProbeEntry {
    ProbeEntry {
        vip: mapped(way.vip),
        backend: mapped(way.backend),
        outer: mapped(way.outer.unwrap_or(Ipv6Addr::UNSPECIFIED.into())),
        flags: if way.outer.is_some() { PROBE_IPIP } else { 0 },
        pad: 0,
    }
}

/// Names of the interfaces by which the backends are reached.
fn ways_out(ways: &[ProbeWay]) -> Result<BTreeSet<String>> {
    let links = netlink::links()?;
    let mut names = BTreeSet::new();
    for way in ways {
        // No route now: the probe fails until there is one, most likely by an interface that is known.
        let Some(index) = netlink::route_to(way.backend)? else { continue };
        names.extend(links.iter().filter(|link| link.index == index).map(|link| link.name.clone()));
    }
    Ok(names)
}

/// Takes the filters away that an earlier process left on any interface.
pub(super) fn remove_left() -> Result<()> {
    for link in netlink::links()? {
        for (name, direction) in PROGRAMS {
            remove(&link.name, direction, name)?;
        }
    }
    Ok(())
}

fn remove(interface: &str, direction: TcAttachType, name: &str) -> Result<()> {
    match qdisc_detach_program(interface, direction, name) {
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Without a clsact queue there is nothing to look through.
        Err(TcError::NetlinkError(_)) | Ok(()) => Ok(()),
        Err(source) => Err(Error::Program {
            action: format!("remove {name} from interface {interface}"),
            source: Box::new(source.into()),
        }),
    }
}
