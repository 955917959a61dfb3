//! The far end of a veth that XDP sends out of.

use std::fmt;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode},
};
use lb_abi::names;

use crate::{netns::Namespace, xdp::kernel};

/// Large maps of the object, which this program does not use.
const LARGE: [&str; 4] = [names::MAP_SLOTS, names::MAP_FLOWS, names::MAP_GATES, names::MAP_GUARD];

/// `lb_pass` on an interface until dropped. The veth driver queues what `XDP_TX` sends, but wakes the receiver
/// only where that has a program of its own (drivers/net/veth.c, `veth_xdp_flush`, Linux 6.18).
pub struct Passage(Ebpf);

impl Passage {
    /// Attaches natively.
    ///
    /// # Errors
    /// There is no object, or it is refused.
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        LARGE.iter().for_each(|name| _ = loader.map_max_entries(name, 1));
        let mut ebpf = loader.load_file(kernel::object()).context("loading the object for lb_pass")?;
        let program: &mut Xdp =
            ebpf.program_mut(names::PROGRAM_PASS).context(names::PROGRAM_PASS)?.try_into()?;
        program.load()?;
        namespace.run(|| program.attach(interface, XdpMode::Driver).map(drop))??;
        Ok(Self(ebpf))
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passage({} programs)", self.0.programs().count())
    }
}
