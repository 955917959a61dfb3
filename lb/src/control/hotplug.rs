//! Interfaces of `[xdp]` that come and go while we run, and the addresses on them.
//!
//! Looked at once a tick rather than listened for: a look asks the kernel two questions per interface, sees whatever
//! happened in between, and misses nothing when a message is lost. What is lost by that is up to a second.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    clock::now_ticks,
    desired::{Outer, local},
    host,
};
use crate::{
    config::Xdp,
    steering::{Desired, Plane, Presence},
};

/// What is watched, and what was last said of it.
pub(super) struct Hotplug {
    xdp: Xdp,
    outer: Outer,
    /// What the maps hold; its outer sources follow the interfaces.
    desired: Desired,
    /// Why an interface is without our program. A line of the log for each new reason, not for each look.
    said: BTreeMap<Arc<str>, String>,
}

impl Hotplug {
    /// `desired` was synced with the outer sources `outer`.
    pub(super) fn new(xdp: Xdp, outer: Outer, desired: Desired) -> Self {
        Self { xdp, outer, desired, said: BTreeMap::new() }
    }

    /// What the maps hold.
    pub(super) const fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What is watched.
    pub(super) const fn xdp(&self) -> &Xdp {
        &self.xdp
    }

    /// Outer sources that are used.
    pub(super) const fn outer(&self) -> Outer {
        self.outer
    }

    /// Attaches what came, says what went.
    pub(super) fn look(&mut self, plane: &mut Plane) {
        for interface in &self.xdp.interfaces {
            let name = &interface.name;
            let lost = match plane.presence(name) {
                Ok(Presence::Attached) => None,
                Ok(Presence::Absent) => {
                    plane.forget_interface(name);
                    Some("it is not there; it is attached when it comes".to_owned())
                }
                Ok(Presence::Bare) => match plane.attach(name, interface.mode) {
                    Ok(attached) => {
                        tracing::info!(interface = %name, mode = ?attached.mode, "XDP attached: the interface has come");
                        let off = host::forwarding_off(std::iter::once(&**name));
                        off.iter().for_each(|warning| tracing::warn!("{warning}"));
                        None
                    }
                    Err(error) => Some(error.to_string()),
                },
                Err(error) => Some(error.to_string()),
            };
            match lost {
                None => _ = self.said.remove(name),
                Some(why) if self.said.get(name) == Some(&why) => {}
                Some(why) => {
                    tracing::warn!(interface = %name, %why, "no packet comes in by this interface");
                    self.said.insert(name.clone(), why);
                }
            }
        }
        self.follow_addresses(plane);
    }

    /// An outer source appears with its interface, and may change with it. One that is gone is kept: another may
    /// still take its packets, and none at all would drop them here. A backend is this box itself for as long as its
    /// address is here.
    fn follow_addresses(&mut self, plane: &mut Plane) {
        let (Ok(found), Ok(local)) = (Outer::of(&self.xdp), local(&self.desired.pools)) else { return };
        let outer = found.or(self.outer);
        if outer == self.outer && local == self.desired.local {
            return;
        }
        let desired = outer.put_into(Desired { local, ..self.desired.clone() });
        match plane.sync(&desired, now_ticks()) {
            Ok(()) => {
                let local = &desired.local;
                tracing::info!(
                    ?outer,
                    ?local,
                    "the source of encapsulated packets changed, or backends that are this box"
                );
                (self.outer, self.desired) = (outer, desired);
            }
            Err(error) => tracing::warn!(%error, "the present addresses of this box are not used yet"),
        }
    }
}
