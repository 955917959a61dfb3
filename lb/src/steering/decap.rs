//! `lb_decap` on an interface of a backend that has no tunnel device.

use aya::{Ebpf, maps::PerCpuArray, programs::links::FdLink};
use lb_abi::{names, reason::Reason};

use super::{
    attach::{self, Attached},
    error::{Error, Result},
    loader, maps, object, stats,
};
use crate::config::XdpMode;

/// A running `lb_decap`. Dropping it takes the program off the interface.
pub struct Decap {
    attached: Attached,
    reasons: maps::Reasons,
    _link: Option<FdLink>,
    _object: Ebpf,
}

impl Decap {
    /// Takes IPIP, 4in6, 6in4, IP6IP6 and GUE (UDP port 6080) packets apart as they come in on `interface`. Nothing is pinned.
    ///
    /// # Errors
    /// As [`super::Plane::open`] and [`super::Plane::attach`].
    pub fn attach(interface: &str, mode: Option<XdpMode>) -> Result<Self> {
        let mut object = loader::load_without(object::embedded()?, &[loader::OF_INGRESS, loader::OF_STEER])?;
        let reasons = object
            .take_map(names::MAP_REASONS)
            .ok_or(Error::Missing { kind: "map", name: names::MAP_REASONS })?;
        let reasons = PerCpuArray::try_from(reasons).map_err(Error::map(names::MAP_REASONS))?;
        let program = loader::xdp(&mut object, names::PROGRAM_DECAP)?;
        let (attached, link) = attach::attach(program, interface, mode, None)?;
        Ok(Self { attached, reasons, _link: link, _object: object })
    }

    /// How it hangs there.
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Packets by verdict.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn reasons(&self) -> Result<Vec<(Reason, u64)>> {
        stats::reasons(&self.reasons)
    }
}
