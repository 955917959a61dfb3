//! Loads the object, with its maps pinned by name, or adopts the maps that an earlier process pinned.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::Path};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, Map, MapData, MapError, MapInfo},
    programs::{ProgramError, SchedClassifier, SkLookup, SkReuseport, Xdp},
};
use lb_abi::{ABI_VERSION, meta::Meta, names};

use rustix::io::Errno;

use super::{
    error::{Error, Holder, LOST_ALL, Result, not_permitted},
    maps::{Programs, SHAPES, Shape},
    object,
};
use crate::sys::lock::{self, Lock, LockError};

/// `f_type` of a bpffs. Source: linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Large maps that only `lb_ingress` needs whole: some 100 MiB.
pub(super) const OF_INGRESS: &[&str] = &[
    names::MAP_SLOTS,
    names::MAP_FLOWS,
    names::MAP_FLOW_KEYS,
    names::MAP_NEW_FLOWS,
    names::MAP_NAT_OPENING,
    names::MAP_NAT_FLOWS,
    names::MAP_GATES,
    names::MAP_GUARD,
    names::MAP_PROBE_PORTS,
    names::MAP_ACTIVITY,
];
/// The one that only `lb_steer` needs whole.
pub(super) const OF_STEER: &[&str] = &[names::MAP_STEER_SOCKETS];

/// Creates or adopts the maps, pinned under `pins` (which is [taken](take_directory)), or unpinned when there is none. Loads no program yet.
///
/// # Errors
/// Another version's object or pins, a directory outside bpffs, missing capabilities; the maps that were
/// pinned before stay as they are.
pub(super) fn load(bytes: &[u8], pins: Option<&Path>) -> Result<Ebpf> {
    object::check_abi(bytes)?;
    let mut loader = EbpfLoader::new();
    // The kernel refuses one that is longer than it was built for. Where it does not say, only core 0 is had.
    let cores = aya::util::nr_cpus().map_or(1, |cores| cores as u32);
    loader.map_max_entries(names::MAP_SPREAD_CPUS, cores);
    let mut made = Vec::new();
    if let Some(dir) = pins {
        SHAPES.iter().try_for_each(|shape| check_pin(dir, shape))?;
        check_pinned_abi(dir)?;
        for shape in &SHAPES {
            let pin = dir.join(shape.name);
            if !pin.exists() {
                made.push(pin.clone());
            }
            loader.map_pin_path(shape.name, pin);
        }
    }
    let loaded = loader.load(bytes).map_err(load_error).and_then(|object| {
        SHAPES.iter().try_for_each(|shape| check_made(&object, shape))?;
        Ok(object)
    });
    if loaded.is_err() {
        // Half a set of maps helps nobody; one that is not there to be removed was not made.
        made.iter().for_each(|pin| drop(fs::remove_file(pin)));
    }
    loaded
}

/// Refuses an object whose map has another shape than the contract this daemon was compiled with.
fn check_made(object: &Ebpf, shape: &Shape) -> Result<()> {
    // The kinds of map that the contract has; another kind is another contract.
    let Some(
        Map::Array(map)
        | Map::HashMap(map)
        | Map::LruHashMap(map)
        | Map::PerCpuArray(map)
        | Map::ProgramArray(map)
        | Map::ReusePortSockArray(map),
    ) = object.map(shape.name)
    else {
        return Err(Error::Missing { kind: "map", name: shape.name });
    };
    let info = map.info().map_err(Error::map(shape.name))?;
    match differing(&info, shape) {
        None => Ok(()),
        Some((what, is, expected)) => Err(Error::ObjectShape { map: shape.name, what, is, expected }),
    }
}

/// As [`load`], unpinned, and with the maps of other programs shrunk to one entry.
pub(super) fn load_without(bytes: &[u8], others: &[&[&'static str]]) -> Result<Ebpf> {
    object::check_abi(bytes)?;
    let mut loader = EbpfLoader::new();
    others.iter().copied().flatten().for_each(|name| {
        loader.map_max_entries(name, 1);
    });
    loader.load(bytes).map_err(load_error)
}

/// An XDP program of the object, loaded now if it is not yet.
pub(super) fn xdp<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp> {
    let missing = Error::Missing { kind: "program", name };
    let program: &mut Xdp =
        object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(missing)?;
    if program.fd().is_err() {
        program.load().map_err(|error| program_error(name, error))?;
    }
    Ok(program)
}

/// Puts an XDP program where `lb_ingress` calls it. An earlier process's one is replaced without a gap.
pub(super) fn place(object: &mut Ebpf, programs: &mut Programs, name: &'static str, call: u32) -> Result<()> {
    let failed = |source| Error::Program { action: format!("place {name}"), source: Box::new(source) };
    let fd = xdp(object, name)?.fd().map_err(failed)?;
    programs.set(call, fd, 0).map_err(Error::map(names::MAP_PROGRAMS))
}

/// An sk_reuseport program of the object, loaded now if it is not yet.
pub(super) fn sk_reuseport<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SkReuseport> {
    let missing = Error::Missing { kind: "program", name };
    let program: &mut SkReuseport =
        object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(missing)?;
    if program.fd().is_err() {
        program.load().map_err(|error| program_error(name, error))?;
    }
    Ok(program)
}

/// An sk_lookup program of the object, loaded now if it is not yet.
pub(super) fn sk_lookup<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SkLookup> {
    let missing = Error::Missing { kind: "program", name };
    let program: &mut SkLookup =
        object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(missing)?;
    if program.fd().is_err() {
        program.load().map_err(|error| program_error(name, error))?;
    }
    Ok(program)
}

/// A traffic-control program of the object, loaded now if it is not yet.
pub(super) fn classifier<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier> {
    let missing = Error::Missing { kind: "program", name };
    let program: &mut SchedClassifier =
        object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(missing)?;
    if program.fd().is_err() {
        program.load().map_err(|error| program_error(name, error))?;
    }
    Ok(program)
}

/// Makes the directory, if it is not there, and locks it.
///
/// # Errors
/// It is not on a bpffs, cannot be made, or another daemon has it.
pub(super) fn take_directory(dir: &Path) -> Result<Lock> {
    prepare_directory(dir)?;
    lock::directory(dir).map_err(|error| match error {
        LockError::Held(pid) => Error::Held { dir: dir.to_owned(), by: Holder(pid) },
        LockError::Io(source) => Error::file("open", dir)(source),
    })
}

/// Makes the directory, 0700, where pins can live.
fn prepare_directory(dir: &Path) -> Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let existing = if dir.exists() { dir } else { parent };
    let no_bpffs = || Error::NoBpffs { dir: dir.to_owned(), parent: parent.to_owned() };
    match rustix::fs::statfs(existing) {
        Ok(stat) if stat.f_type == BPF_FS_MAGIC => {}
        Ok(_) | Err(Errno::NOENT) => return Err(no_bpffs()),
        Err(errno) => return Err(Error::file("statfs", existing)(errno.into())),
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::file("mkdir", dir)(error)),
        _ => Ok(()),
    }
}

/// Refuses a pinned map that has another shape than the contract says.
fn check_pin(dir: &Path, shape: &Shape) -> Result<()> {
    let path = dir.join(shape.name);
    if !path.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(&path).map_err(Error::map(shape.name))?;
    match differing(&info, shape) {
        None => Ok(()),
        Some((what, pinned, expected)) => {
            Err(Error::PinnedShape { dir: dir.to_owned(), map: shape.name, what, pinned, expected })
        }
    }
}

/// The first measure that differs: what, is, expected. An expected 0 means any.
fn differing(info: &MapInfo, shape: &Shape) -> Option<(&'static str, u32, u32)> {
    let measures = [
        ("a key size of", info.key_size(), shape.key_size),
        ("a value size of", info.value_size(), shape.value_size),
        ("a length of", info.max_entries(), shape.max_entries),
    ];
    measures.into_iter().find(|(_, is, expected)| is != expected && *expected != 0)
}

/// Refuses maps that another version wrote. Ones that nobody wrote yet (version 0) are taken.
fn check_pinned_abi(dir: &Path) -> Result<()> {
    let path = dir.join(names::MAP_META);
    if !path.exists() {
        return Ok(());
    }
    let read = || -> std::result::Result<Meta, MapError> {
        let map = Map::from_map_data(MapData::from_pin(&path)?)?;
        Array::<_, Meta>::try_from(map)?.get(&0, 0)
    };
    let pinned = read().map_err(Error::map(names::MAP_META))?.abi;
    if pinned == 0 || pinned == ABI_VERSION {
        return Ok(());
    }
    Err(Error::PinnedAbi { dir: dir.to_owned(), pinned, ours: ABI_VERSION })
}

fn load_error(error: EbpfError) -> Error {
    let denied = match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => not_permitted(io_error),
        EbpfError::MapError(MapError::SyscallError(error)) => not_permitted(&error.io_error),
        _ => false,
    };
    if denied {
        return Error::Permission {
            action: "create maps".to_owned(),
            call: "BPF_MAP_CREATE",
            lost: LOST_ALL,
        };
    }
    Error::Load(Box::new(error))
}

fn program_error(program: &'static str, error: ProgramError) -> Error {
    match error {
        // EPERM comes without a log; EACCES with one is the verifier's.
        ProgramError::LoadError { io_error, .. } if Errno::from_io_error(&io_error) == Some(Errno::PERM) => {
            Error::Permission { action: format!("load {program}"), call: "BPF_PROG_LOAD", lost: LOST_ALL }
        }
        ProgramError::LoadError { io_error, verifier_log } => {
            Error::Rejected { program, source: io_error, log: verifier_log.to_string() }
        }
        error => Error::Program { action: format!("load {program}"), source: Box::new(error) },
    }
}
