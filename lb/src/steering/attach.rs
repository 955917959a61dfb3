//! An XDP program on an interface: native first, pinned, and replaced in place when we come again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, Xdp, XdpMode as AyaMode,
    links::{FdLink, LinkError, PinnedLink},
    loaded_programs,
    xdp::{XdpError, XdpLink, XdpLinkId},
};

use rustix::io::Errno;

use super::{
    error::{Error, Result, Stranger, not_permitted},
    netlink,
    pins::{claim, pin_name, remove_link},
};
use crate::config::XdpMode;

const LOST_XDP: &str = "no packet is forwarded by XDP";

/// What became of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Attached {
    /// Name of the interface.
    pub interface: String,
    /// How the program hangs there.
    pub mode: XdpMode,
    /// An earlier process's program was there, and was replaced without a gap.
    pub replaced: bool,
    /// Why it is not native, where that was not asked for.
    pub fallback: Option<String>,
}

/// An interface as attach sees it.
struct Target<'a> {
    interface: &'a str,
    index: u32,
    pin: Option<PathBuf>,
}

/// Attaches a loaded program, or replaces the one behind the pinned link.
///
/// Given `pins` the link is pinned there and outlives us. Else it lives as long as the returned link.
pub(super) fn attach(
    program: &mut Xdp,
    interface: &str,
    mode: Option<XdpMode>,
    pins: Option<&Path>,
) -> Result<(Attached, Option<FdLink>)> {
    let index = netlink::interface_index(interface)?;
    let pin = pins.map(|dir| dir.join(pin_name(interface)));
    let target = Target { interface, index, pin };
    target.pin.as_ref().map_or(Ok(()), |pin| claim(pin, index))?;
    let mut former = None;
    if let Some(there) = target.replace(program)? {
        if mode.is_none_or(|mode| mode == there) {
            let attached =
                Attached { interface: interface.to_owned(), mode: there, replaced: true, fallback: None };
            return Ok((attached, None));
        }
        // One interface cannot have both: the mode changes with a gap, which is what was asked for.
        if let Some(pin) = &target.pin {
            remove_link(pin, interface)?;
        }
        former = Some(there);
    }
    let fresh = target.attach_fresh(program, mode);
    if let (Err(_), Some(former)) = (&fresh, former) {
        target.attach_fresh(program, Some(former))?;
    }
    fresh
}

impl Target<'_> {
    /// Puts the program behind the pinned link, if that is there and still is this interface's. Packets see
    /// the old program or the new one, never none.
    fn replace(&self, program: &mut Xdp) -> Result<Option<XdpMode>> {
        let Some(pin) = self.pin.as_ref().filter(|pin| pin.exists()) else { return Ok(None) };
        let pinned = PinnedLink::from_pin(pin).map_err(|error| self.link_error("open the pin of", error))?;
        let link = XdpLink::try_from(FdLink::from(pinned))
            .map_err(|error| self.link_error("use the pin of", error))?;
        let id = match program.attach_to_link(link) {
            Ok(id) => id,
            // The interface went away under the link, and this is another one with its name.
            Err(error) if errno(&error) == Some(Errno::NOLINK) => {
                self.remove_pin()?;
                return Ok(None);
            }
            Err(error) => return Err(self.program_error("replace the program on", error)),
        };
        let link = self.take(program, id)?;
        let info = link.info().map_err(|error| self.link_error("read the link of", error))?;
        match netlink::xdp_on(self.index)? {
            Some(there) if there.program_id == info.program_id() => Ok(Some(there.mode)),
            // The link is on an interface of another network namespace with the same index.
            _ => self.remove_pin().map(|()| None),
        }
    }

    fn attach_fresh(&self, program: &mut Xdp, mode: Option<XdpMode>) -> Result<(Attached, Option<FdLink>)> {
        let mut fallback = None;
        let first = mode.unwrap_or(XdpMode::Native);
        let (mode, id) = match program.attach_to_if_index(self.index, aya_mode(first)) {
            Ok(id) => (first, id),
            Err(error) if mode.is_none() && is_about_the_driver(&error) => {
                fallback = Some(self.reason(&error));
                let id = program.attach_to_if_index(self.index, AyaMode::Skb);
                (XdpMode::Generic, id.map_err(|error| self.attach_error(XdpMode::Generic, error))?)
            }
            Err(error) => return Err(self.attach_error(first, error)),
        };
        let link = self.take(program, id)?;
        let held = match &self.pin {
            None => Some(link),
            // Only the pin holds it: removing the pin detaches, whoever else still runs.
            Some(pin) => link.pin(pin).map(|_| None).map_err(|error| Error::File {
                call: "pin",
                path: pin.clone(),
                source: io::Error::other(error),
            })?,
        };
        Ok((Attached { interface: self.interface.to_owned(), mode, replaced: false, fallback }, held))
    }

    fn take(&self, program: &mut Xdp, id: XdpLinkId) -> Result<FdLink> {
        let link = program.take_link(id).map_err(|error| self.program_error("keep the link of", error))?;
        FdLink::try_from(link).map_err(|error| self.link_error("keep the link of", error))
    }

    fn remove_pin(&self) -> Result<()> {
        let Some(pin) = &self.pin else { return Ok(()) };
        fs::remove_file(pin).map_err(Error::file("unlink", pin))
    }

    fn attach_error(&self, mode: XdpMode, error: ProgramError) -> Error {
        let interface = self.interface.to_owned();
        match errno(&error) {
            Some(Errno::BUSY | Errno::EXIST) => Error::Occupied { interface, other: stranger_on(self.index) },
            Some(Errno::PERM | Errno::ACCESS) => Error::Permission {
                action: format!("attach to interface {interface}"),
                call: "BPF_LINK_CREATE",
                lost: LOST_XDP,
            },
            _ => Error::Mode {
                interface,
                mode: match mode {
                    XdpMode::Native => "native",
                    XdpMode::Generic => "generic",
                },
                reason: self.reason(&error),
            },
        }
    }

    /// The innermost words of an error, and a guess at what is behind it.
    fn reason(&self, error: &ProgramError) -> String {
        let mtu = netlink::devices().ok().and_then(|devices| {
            devices.into_iter().find(|device| device.index == self.index).map(|device| device.mtu)
        });
        with_mtu(reason(error), mtu)
    }

    fn program_error(&self, action: &str, source: ProgramError) -> Error {
        Error::Program { action: format!("{action} interface {}", self.interface), source: Box::new(source) }
    }

    fn link_error(&self, action: &str, source: LinkError) -> Error {
        match source {
            LinkError::SyscallError(error) if not_permitted(&error.io_error) => Error::Permission {
                action: format!("{action} interface {}", self.interface),
                call: error.call,
                lost: LOST_XDP,
            },
            source => Error::Link {
                action: format!("{action} interface {}", self.interface),
                source: Box::new(source),
            },
        }
    }
}

/// Who is on an interface. The name is told to CAP_SYS_ADMIN only.
fn stranger_on(index: u32) -> Stranger {
    let id = netlink::xdp_on(index).ok().flatten().map(|there| there.program_id);
    let program = loaded_programs().flatten().find(|program| Some(program.id()) == id);
    Stranger { id, name: program.and_then(|program| program.name_as_str().map(str::to_owned)) }
}

fn aya_mode(mode: XdpMode) -> AyaMode {
    match mode {
        XdpMode::Native => AyaMode::Driver,
        XdpMode::Generic => AyaMode::Skb,
    }
}

/// Whether generic mode may do where native did not: anything but "not allowed" and "taken".
fn is_about_the_driver(error: &ProgramError) -> bool {
    !matches!(errno(error), Some(Errno::PERM | Errno::ACCESS | Errno::BUSY | Errno::EXIST | Errno::NODEV))
}

fn errno(error: &ProgramError) -> Option<Errno> {
    match error {
        ProgramError::SyscallError(error) => Errno::from_io_error(&error.io_error),
        _ => None,
    }
}

/// Frames beyond this take more than one page, which not every driver can give to XDP: a page less the headroom and what
/// the kernel keeps behind a frame.
const ONE_BUFFER_MTU: u32 = 3498;

/// The kernel's number alone would not say that a large MTU may be the reason.
fn with_mtu(reason: String, mtu: Option<u32>) -> String {
    match mtu {
        Some(mtu) if mtu > ONE_BUFFER_MTU => format!(
            "{reason} (its MTU is {mtu}; drivers without XDP for frames of several buffers take up to about \
             {ONE_BUFFER_MTU})"
        ),
        _ => reason,
    }
}

/// The innermost words of an error.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(error) => error.io_error.to_string(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_mtu_is_named() {
        let refused = |mtu| with_mtu("Invalid argument".to_owned(), mtu);
        assert_eq!(refused(Some(1500)), "Invalid argument");
        assert_eq!(refused(None), "Invalid argument");
        assert!(refused(Some(9000)).contains("its MTU is 9000"), "{}", refused(Some(9000)));
    }
}
