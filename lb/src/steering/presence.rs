//! Whether an interface is there, and whether it still carries our program.

use super::{Plane, error::Result, netlink};

/// How an interface stands, as the kernel says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// `lb_ingress` hangs on it.
    Attached,
    /// It is there without our program: it came, came back, or somebody took the program off.
    Bare,
    /// There is no interface of this name.
    Absent,
}

impl Plane {
    /// Looks at an interface.
    ///
    /// # Errors
    /// The kernel does not list its interfaces.
    pub fn presence(&self, interface: &str) -> Result<Presence> {
        let Some(link) = netlink::links()?.into_iter().find(|link| link.name == interface) else {
            return Ok(Presence::Absent);
        };
        if !self.attached.contains_key(interface) {
            return Ok(Presence::Bare);
        }
        let there = netlink::xdp_on(link.index)?.map(|there| there.program_id);
        let is_ours = there.is_some() && there == self.ingress_id;
        Ok(if is_ours { Presence::Attached } else { Presence::Bare })
    }

    /// An interface is gone, and with it what hung there.
    pub fn forget_interface(&mut self, interface: &str) {
        self.attached.remove(interface);
    }
}
