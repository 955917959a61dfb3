//! Listeners' packets spread over the workers' cores by XDP: whether that is worth it, and the maps for it.
//!
//! None of them is pinned: flows end with the sockets of this process. What an earlier process left armed goes on
//! until this one says otherwise, which is right, as a core is as good as another for whom nobody listens.

use std::ops::RangeInclusive;

use aya::maps::{Array, CpuMap, MapData};
use lb_abi::{
    bounds::{SPREAD_PORT_WORDS, SPREAD_QUEUE},
    meta::{FLAG_SPREAD, Meta},
    names,
    spread::{Spread as Entry, port_bit},
};

use super::{
    Plane,
    error::{Error, Result},
    maps::typed,
    reuseport::{Device, InterfaceFacts},
};
use crate::config::Spread;

/// What [`Spread`] comes down to on this machine, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SpreadChoice {
    /// Whether packets are spread.
    pub on: bool,
    /// For `lb status` and the log.
    pub reason: String,
    /// Interfaces whose packets may come without a checksum, which spreading them would not make good.
    pub unsummed: Vec<String>,
}

/// Decides for the interfaces of `[xdp]`, and the cores of all workers.
pub fn choose(spread: Spread, interfaces: &[InterfaceFacts], worker_cores: &[usize]) -> SpreadChoice {
    let choice = |on, reason: &str| SpreadChoice { on, reason: reason.to_owned(), unsummed: Vec::new() };
    if spread == Spread::Off {
        return choice(false, "xdp.spread is off");
    }
    let has_queues = |facts: &InterfaceFacts| match &facts.device {
        Device::Queues(cores) => worker_cores.iter().all(|core| cores.contains(core)),
        Device::Software | Device::Spread => false,
    };
    if !interfaces.is_empty() && interfaces.iter().all(has_queues) {
        return choice(false, "every worker's core owns a receive queue");
    }
    let software = interfaces.iter().filter(|facts| facts.device == Device::Software);
    let unsummed = software.map(|facts| facts.name.clone()).collect();
    SpreadChoice { unsummed, ..choice(true, "some worker's core owns no receive queue") }
}

impl Plane {
    /// Spreads TCP packets to these ports over these cores, by a hash of their flow under `key`. To be called once.
    ///
    /// # Errors
    /// The map that refused.
    pub fn arm_spread(
        &mut self,
        cores: &[usize],
        ports: impl Iterator<Item = RangeInclusive<u16>>,
        key: [u64; 2],
    ) -> Result<()> {
        let mut cpus: CpuMap<MapData> = typed(&mut self.object, names::MAP_SPREAD_CPUS)?;
        let mut by_worker: Array<MapData, u32> = typed(&mut self.object, names::MAP_SPREAD_CORES)?;
        for (worker, &core) in (0..).zip(cores) {
            let core = core as u32;
            cpus.set(core, SPREAD_QUEUE, None, 0)
                .map_err(|source| Error::Cpu { core, source: Box::new(source) })?;
            by_worker.set(worker, core, 0).map_err(Error::map(names::MAP_SPREAD_CORES))?;
        }
        let mut words: Array<MapData, u32> = typed(&mut self.object, names::MAP_SPREAD_PORTS)?;
        for (at, word) in (0..).zip(bits(ports)).filter(|(_, word)| *word != 0) {
            words.set(at, word, 0).map_err(Error::map(names::MAP_SPREAD_PORTS))?;
        }
        let mut spread: Array<MapData, Entry> = typed(&mut self.object, names::MAP_SPREAD)?;
        let entry = Entry { key, workers: cores.len() as u32, pad: 0 };
        spread.set(0, entry, 0).map_err(Error::map(names::MAP_SPREAD))?;
        let flags = self.sync.meta.flags | FLAG_SPREAD;
        self.sync.put_meta(&mut self.maps, Meta { flags, ..self.sync.meta })
    }

    /// Leaves packets where they come in, whatever an earlier process did.
    ///
    /// # Errors
    /// The map that refused.
    pub fn disarm_spread(&mut self) -> Result<()> {
        let flags = self.sync.meta.flags & !FLAG_SPREAD;
        self.sync.put_meta(&mut self.maps, Meta { flags, ..self.sync.meta })
    }
}

/// One bit for each port.
fn bits(ports: impl Iterator<Item = RangeInclusive<u16>>) -> Vec<u32> {
    let mut words = vec![0; SPREAD_PORT_WORDS as usize];
    for (word, bit) in ports.flatten().map(port_bit) {
        words[word as usize] |= bit;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(device: Device) -> InterfaceFacts {
        InterfaceFacts { name: "eth0".to_owned(), device }
    }

    #[test]
    fn packets_are_spread_where_some_worker_has_no_queue() {
        let on = |interfaces: &[Device]| {
            let interfaces: Vec<_> = interfaces.iter().cloned().map(interface).collect();
            choose(Spread::On, &interfaces, &[0, 1])
        };
        assert!(on(&[Device::Queues(vec![0])]).on);
        assert!(on(&[Device::Queues(vec![0]), Device::Queues(vec![1])]).on);
        assert!(on(&[Device::Queues(vec![0]), Device::Queues(vec![0, 1])]).on);
        assert!(!on(&[Device::Queues(vec![1, 0])]).on, "its queues do it");
        assert!(on(&[]).on, "what comes later may have too few");
        let veth = on(&[Device::Software]);
        assert!(veth.on && veth.unsummed == ["eth0"], "{veth:?}");
        assert!(!choose(Spread::Off, &[interface(Device::Queues(vec![0]))], &[0, 1]).on);
    }

    #[test]
    fn every_port_has_its_bit() {
        let words = bits([80..=80, 8000..=8063, 65535..=65535].into_iter());
        let has = |port: u16| words[port_bit(port).0 as usize] & port_bit(port).1 != 0;
        assert_eq!(words.iter().map(|word| word.count_ones()).sum::<u32>(), 66);
        assert!(has(80) && has(8000) && has(8063) && has(65535) && !has(8064) && !has(81));
    }
}
