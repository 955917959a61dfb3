//! What can go wrong on the way into the kernel, with the name of the syscall, map or program.

use std::{io, net::IpAddr, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, links::LinkError},
};

use super::floor;
use crate::model::BackendId;

/// Errors of [`super::Plane`] and its parts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `lb` was compiled before the object was.
    #[error("built without packet programs: run `cargo xtask build-ebpf` and build again")]
    NoObject,
    /// The object is no ELF file, or lacks the version symbol.
    #[error("the packet programs' object is unreadable: {0}")]
    Object(String),
    /// The object was made from another contract.
    #[error("the packet programs speak abi version {object}, this daemon {ours}: build both from one tree")]
    ObjectAbi {
        /// Version in the object.
        object: u32,
        /// [`lb_abi::ABI_VERSION`].
        ours: u32,
    },
    /// The pinned maps were made by another version.
    #[error(
        "the maps pinned in {dir} were made by abi version {pinned}, this daemon speaks {ours}: \
         `lb detach` removes them (L4 forwarding stops until the next start)"
    )]
    PinnedAbi {
        /// Directory of the pins.
        dir: PathBuf,
        /// Version in the pinned `META`.
        pinned: u32,
        /// [`lb_abi::ABI_VERSION`].
        ours: u32,
    },
    /// A pinned map has another shape than the object's.
    #[error(
        "map {map} pinned in {dir} has {what} {pinned} where {expected} was expected: `lb detach` removes it"
    )]
    PinnedShape {
        /// Directory of the pins.
        dir: PathBuf,
        /// Name of the map.
        map: &'static str,
        /// Which of its measures.
        what: &'static str,
        /// Its value.
        pinned: u32,
        /// The value of the contract.
        expected: u32,
    },
    /// A map of the object has another shape than this daemon's contract.
    #[error(
        "map {map} of the packet programs has {what} {is} where this daemon expects {expected}: \
         build both from one tree"
    )]
    ObjectShape {
        /// Name of the map.
        map: &'static str,
        /// Which of its measures.
        what: &'static str,
        /// Its value.
        is: u32,
        /// The value of the contract.
        expected: u32,
    },
    /// The pin directory is not on a bpffs.
    #[error(
        "{dir} is not on a bpf filesystem, so nothing can be pinned there: as root, \
         `mkdir -p {parent} && mount -t bpf bpf {parent}`"
    )]
    NoBpffs {
        /// Directory of the pins.
        dir: PathBuf,
        /// What to mount.
        parent: PathBuf,
    },
    /// Another process writes these maps.
    #[error("{dir} belongs to another running lb{by}: one daemon for each directory of pins (--bpf-dir)")]
    Held {
        /// Directory of the pins.
        dir: PathBuf,
        /// Who has it.
        by: Holder,
    },
    /// A file of the pin directory.
    #[error("{call} {path}: {source}")]
    File {
        /// Which call.
        call: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel would not let us.
    #[error(
        "not permitted to {action} ({call}): CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed; without them {lost}"
    )]
    Permission {
        /// What was tried.
        action: String,
        /// Which call.
        call: &'static str,
        /// What does not work now.
        lost: &'static str,
    },
    /// The object could not be loaded.
    #[error("load the packet programs: {0}{hint}", hint = floor::hint())]
    Load(#[source] Box<EbpfError>),
    /// The verifier refused a program.
    #[error("program {program} was refused by the kernel: {source}{hint}\n{log}", hint = floor::hint())]
    Rejected {
        /// Name of the program.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// The verifier's log.
        log: String,
    },
    /// The object lacks a program or map of the contract.
    #[error("the object has no {kind} {name}")]
    Missing {
        /// `program` or `map`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// Something done to a program.
    #[error("{action}: {source}")]
    Program {
        /// What was tried.
        action: String,
        /// What came of it.
        source: Box<ProgramError>,
    },
    /// Something done to a link.
    #[error("{action}: {source}")]
    Link {
        /// What was tried.
        action: String,
        /// What came of it.
        source: Box<LinkError>,
    },
    /// Something done to a map.
    #[error("map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What came of it.
        source: Box<MapError>,
    },
    /// A core that packets cannot be spread to.
    #[error("map {map}, core {core}: {source}", map = lb_abi::names::MAP_SPREAD_CPUS)]
    Cpu {
        /// Its number.
        core: u32,
        /// What the kernel said.
        source: Box<aya::maps::xdp::XdpMapError>,
    },
    /// A syscall of ours.
    #[error("{call}: {source}")]
    Syscall {
        /// Which call, on what.
        call: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface carries a program that is not ours.
    #[error(
        "interface {interface} already carries another XDP program{other}; remove it first (`ip link set {interface} xdp off`)"
    )]
    Occupied {
        /// Name of the interface.
        interface: String,
        /// Whose program is there.
        other: Stranger,
    },
    /// A question about an interface that we are not on.
    #[error(
        "interface {interface} does not carry {}; {}",
        lb_abi::names::PROGRAM_INGRESS,
        carried_by(attached)
    )]
    NotAttached {
        /// Name of the interface.
        interface: String,
        /// Those that do.
        attached: Vec<String>,
    },
    /// Something that needs an interface, where there is none.
    #[error("no interface carries {}", lb_abi::names::PROGRAM_INGRESS)]
    NothingAttached,
    /// A second capture.
    #[error("a capture is running already; there is one at a time")]
    Capturing,
    /// A VIP that the maps do not have.
    #[error("no vip {vip}")]
    VipUnknown {
        /// Its name.
        vip: String,
    },
    /// The asked mode cannot be had.
    #[error("interface {interface} cannot run XDP in {mode} mode: {reason}")]
    Mode {
        /// Name of the interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// Why not.
        reason: String,
    },
    /// More of something than a map holds.
    #[error("{is} {what}, but the packet path has room for {max}")]
    Bounds {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        is: usize,
        /// How much there may be.
        max: usize,
    },
    /// Two VIPs claim one address, port and protocol.
    #[error("vip {vip}: {key} is already taken by vip {other}")]
    VipTaken {
        /// The later one.
        vip: String,
        /// Address, port and protocol.
        key: String,
        /// The earlier one.
        other: String,
    },
    /// A VIP names a pool that is not among the desired ones.
    #[error("vip {vip} names pool {pool}, which is not given")]
    PoolUnknown {
        /// Name of the VIP.
        vip: String,
        /// Name of the pool.
        pool: String,
    },
    /// The hash key of a live VIP changed: every flow of it would land on another slot.
    #[error(
        "the secret of live vip {vip} changed, which would move every flow: keep the secret, or `lb detach` first"
    )]
    HashKeyChanged {
        /// Name of the VIP.
        vip: String,
    },
    /// A live VIP would hash by something else: every flow of it would land on another slot.
    #[error(
        "vip {vip} is live and hashes otherwise, so every flow of it would move: keep `hash`, or `lb detach` first"
    )]
    HashChanged {
        /// Name of the VIP.
        vip: String,
    },
    /// A server id would name another backend while the one it names still takes packets.
    #[error(
        "server_id {id} names backend {by}, which still takes packets by it: give another id, or leave it out until \
         that backend is gone or down"
    )]
    ServerIdTaken {
        /// The server id.
        id: u16,
        /// Who has it.
        by: BackendId,
    },
    /// One id, two addresses in one desired state.
    #[error("backend id {id} names both {one} and {two}")]
    BackendTwice {
        /// The id.
        id: BackendId,
        /// One address.
        one: IpAddr,
        /// The other.
        two: IpAddr,
    },
}

fn carried_by(attached: &[String]) -> String {
    match attached {
        [] => "no interface does".to_owned(),
        names => format!("these do: {}", names.join(", ")),
    }
}

/// What steering's functions give back.
pub type Result<T> = std::result::Result<T, Error>;

/// What is lost where programs cannot be loaded.
pub(super) const LOST_ALL: &str = "no packet is forwarded by XDP, and the kernel chooses the worker";

/// An XDP program that is not ours, as far as the kernel tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stranger {
    /// Its id; `None`: it has gone since.
    pub id: Option<u32>,
    /// Its name; `None`: not told to this process.
    pub name: Option<String>,
}

/// Name that libxdp gives the program which calls all others on an interface (protocol for multiple programs,
/// xdp-tools, `lib/libxdp/protocol.org`).
const DISPATCHER: &str = "xdp_dispatcher";

/// ` (x, id 7)`, or nothing.
impl std::fmt::Display for Stranger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.name, self.id) {
            (Some(name), Some(id)) if name == DISPATCHER => write!(
                f,
                " ({name}, id {id}: libxdp's, which calls the programs loaded through it, and lb is not; `xdp-loader status` lists them, `xdp-loader unload --all` ends them)"
            ),
            (Some(name), Some(id)) => write!(f, " ({name}, id {id})"),
            (None, Some(id)) => write!(f, " (id {id})"),
            (_, None) => Ok(()),
        }
    }
}

/// The pid of another daemon, where the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub Option<u32>);

/// ` (pid 7)`, or nothing.
impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |pid| write!(f, " (pid {pid})"))
    }
}

impl Error {
    /// A map call on the map `map`.
    pub(super) fn map(map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| match source {
            MapError::SyscallError(error) if not_permitted(&error.io_error) => {
                Self::Permission { action: format!("use map {map}"), call: error.call, lost: LOST_ALL }
            }
            source => Self::Map { map, source: Box::new(source) },
        }
    }

    /// A file call on `path`.
    pub(super) fn file(call: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { call, path, source }
    }
}

/// EPERM or EACCES.
pub(super) fn not_permitted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
