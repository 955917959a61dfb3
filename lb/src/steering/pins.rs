//! Pins of links. They are named by interface, but an interface may be renamed: a link is told by the index that the
//! kernel says it hangs on, and its pin then gets the name of today.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::programs::links::{FdLink, PinnedLink};

use super::{
    error::{Error, Result},
    netlink,
};

/// Pins of links are called so, followed by the interface's name.
pub(super) const LINK_PREFIX: &str = "link-";

/// Between two looks at an interface whose program is about to leave, and how many.
const DETACH_PAUSE: Duration = Duration::from_millis(2);
const DETACH_PAUSES: u32 = 1000;

/// Name of an interface's pin. A bpffs takes no dots in names, an interface (`eth0.5`) no colons.
pub(super) fn pin_name(interface: &str) -> String {
    format!("{LINK_PREFIX}{}", interface.replace('.', ":"))
}

/// The inverse of [`pin_name`].
pub(super) fn interface_of(pin_name: &str) -> String {
    pin_name.strip_prefix(LINK_PREFIX).unwrap_or(pin_name).replace(':', ".")
}

/// Puts the pin of the link on interface `index` where `pin` says, whatever the interface was called when it was
/// pinned. A link of another interface that lies there steps aside, or goes if its interface is gone.
///
/// # Errors
/// The directory or a pin of it cannot be read or renamed.
pub(super) fn claim(pin: &Path, index: u32) -> Result<()> {
    let Some(dir) = pin.parent() else { return Ok(()) };
    let mut ours = None;
    for path in links(dir)? {
        let Some((id, on)) = index_of(&path) else { continue };
        if on == index {
            ours = Some(path);
        } else if path == *pin {
            // A name that no interface can have: `detach_others` takes it away if nobody claims it.
            let aside = dir.join(format!("{LINK_PREFIX}:{id}:"));
            let moved = if on == 0 { fs::remove_file(&path) } else { fs::rename(&path, aside) };
            moved.map_err(Error::file("rename", &path))?;
        }
    }
    match ours {
        Some(path) if path != *pin => fs::rename(&path, pin).map_err(Error::file("rename", &path)),
        _ => Ok(()),
    }
}

/// Takes the program off every interface that is not among `wanted`; their names as they were pinned.
///
/// # Errors
/// The first pin that cannot be removed.
pub(super) fn detach_others<'a>(dir: &Path, wanted: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let wanted: Vec<PathBuf> = wanted.map(|interface| dir.join(pin_name(interface))).collect();
    let mut gone = Vec::new();
    for path in links(dir)?.into_iter().filter(|path| !wanted.contains(path)) {
        let interface = interface_of(&path.file_name().unwrap_or_default().to_string_lossy());
        remove_link(&path, &interface)?;
        gone.push(interface);
    }
    Ok(gone)
}

/// Removes a pin and waits until the program has left the interface: the kernel frees an unpinned link some
/// milliseconds later (the pin's inode by RCU, the link by a work item).
pub(super) fn remove_link(pin: &Path, interface: &str) -> Result<()> {
    let link = PinnedLink::from_pin(pin).ok().map(FdLink::from);
    let program = link.and_then(|link| link.info().ok()).map(|info| info.program_id());
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(Error::file("unlink", pin))?,
    }
    // An interface that is gone carries nothing.
    let Ok(index) = netlink::interface_index(interface) else { return Ok(()) };
    for _ in 0..DETACH_PAUSES {
        if program.is_none() || netlink::xdp_on(index)?.map(|there| there.program_id) != program {
            return Ok(());
        }
        std::thread::sleep(DETACH_PAUSE);
    }
    let call = format!("wait for the program to leave interface {interface}");
    Err(Error::Syscall { call, source: io::ErrorKind::TimedOut.into() })
}

/// Every pin of a link in `dir`, in the order of the names.
fn links(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::file("readdir", dir))? {
        let path = entry.map_err(Error::file("readdir", dir))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LINK_PREFIX)) {
            links.push(path);
        }
    }
    links.sort_unstable();
    Ok(links)
}

/// Id of a pinned link, and the index of the interface that it is on; 0 where that is gone. `None` where it is no
/// link of ours to read.
///
/// The index stands only in the descriptor's fdinfo (bpf_xdp_link_show_fdinfo, net/core/dev.c, Linux 6.12): aya's
/// `LinkInfo` leaves it out.
fn index_of(pin: &Path) -> Option<(u32, u32)> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    let id = link.info().ok()?.id();
    let infos = fs::read_dir("/proc/thread-self/fdinfo").ok()?;
    let index = infos.flatten().find_map(|entry| index_in(&fs::read_to_string(entry.path()).ok()?, id))?;
    Some((id, index))
}

/// The `ifindex` of an fdinfo, where it is that of link `id`.
fn index_in(fdinfo: &str, id: u32) -> Option<u32> {
    let value = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().parse::<u32>().ok()
    };
    if value("link_id")? != id { None } else { value("ifindex") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for name in ["eth0", "eth0.5", "a-b"] {
            assert_eq!(interface_of(&pin_name(name)), name);
        }
    }

    #[test]
    fn the_index_is_that_of_the_link_asked_for() {
        let fdinfo = "pos:\t0\nflags:\t02000000\nlink_type:\txdp\nlink_id:\t7\nprog_id:\t9\nifindex:\t3\n";
        assert_eq!(index_in(fdinfo, 7), Some(3));
        assert_eq!(index_in(fdinfo, 9), None);
        assert_eq!(index_in("pos:\t0\n", 7), None);
    }
}
