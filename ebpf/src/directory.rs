//! From where a packet is sent to its VIP, by the directory of `lb_abi::directory`.

use lb_abi::{
    be::Be16,
    directory::{self, OVERFLOWN, VipSlot, WAYS},
    lengths::{self, VIP_LENGTHS_MAX, VIP_V4, VIP_V6},
    meta::FLAG_WIDE_VIPS,
    vip::{RANGE, VipEntry, VipKey},
};

use crate::{
    address::Address,
    env::Env,
    numbers::{Family, protocol},
};

/// What a packet is looked up by, and keys of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Destination address.
    pub address: Address,
    /// Destination port; 0 with ICMP, for the address alone.
    pub port: Be16,
    /// IP protocol.
    pub protocol: u8,
    /// See [`VipKey::host_bits`]; 0 for a packet.
    pub host_bits: u8,
}

impl Wanted {
    /// By address, port and protocol.
    #[inline(always)]
    pub const fn new(address: Address, port: Be16, protocol: u8) -> Self {
        Self { address, port, protocol, host_bits: 0 }
    }

    /// By address alone.
    #[inline(always)]
    pub const fn any(address: Address) -> Self {
        Self::new(address, Be16(0), address.family().icmp())
    }
}

/// A key that a packet's address belongs to, as one word: 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u64);

impl Place {
    const NONE: Self = Self(0);

    #[inline(always)]
    const fn of(key: &Wanted) -> Self {
        Self(1 << 32 | (key.port.0 as u64) << 16 | (key.protocol as u64) << 8 | key.host_bits as u64)
    }

    /// The key that it stands for.
    #[inline(always)]
    pub(crate) const fn key(self, address: Address) -> Option<Wanted> {
        if self.0 == 0 {
            return None;
        }
        let (host_bits, protocol, port) = (self.0 as u8, (self.0 >> 8) as u8, (self.0 >> 16) as u16);
        Some(Wanted { address: address.without(host_bits), port: Be16(port), protocol, host_bits })
    }
}

/// The VIP that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipFlags {
    /// Index of its counters.
    pub vip: u32,
    /// Its flags.
    pub flags: u32,
}

impl VipFlags {
    /// As one word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        1 << 63 | (self.vip as u64) << 32 | self.flags as u64
    }

    /// From one; none of 0.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        if word == 0 { None } else { Some(Self { vip: (word << 1 >> 33) as u32, flags: word as u32 }) }
    }
}

/// The VIP that an address belongs to, whatever the port: every VIP address and prefix has a key for ICMP.
#[inline(always)]
pub fn flags_of<E: Env>(env: &E, address: Address) -> Option<VipFlags> {
    let wanted = Wanted::any(address);
    // Not by `Walk::locate`: frames of functions that call each other add up.
    let entry = match find_key(env, wanted) {
        Some(entry) => entry,
        None if env.meta()?.flags & FLAG_WIDE_VIPS != 0 => find_key(env, locate(env, wanted).key(address)?)?,
        None => return None,
    };
    Some(VipFlags { vip: entry.vip, flags: entry.flags })
}

/// The entry of a key, if there is one.
#[inline(always)]
pub(crate) fn find_key<E: Env>(env: &E, wanted: Wanted) -> Option<&VipEntry> {
    let Wanted { address, port, protocol, host_bits } = wanted;
    let (high, low) = address.halves();
    let bucket = env.vip_bucket(directory::bucket(high, low, port, protocol, host_bits));
    for way in 0..WAYS {
        let index = bucket.way(way);
        // Nothing stands behind the first empty way; most packets that are not ours end at the first.
        if index == 0 {
            return None;
        }
        if index == OVERFLOWN {
            return env.vip(&VipKey { address: address.bytes(), port, protocol, host_bits });
        }
        if let Some(slot) = env.vip_slot(index)
            && is_of(slot, &wanted)
        {
            return Some(&slot.entry);
        }
    }
    None
}

#[inline(always)]
fn is_of(slot: &VipSlot, wanted: &Wanted) -> bool {
    let VipKey { address, port, protocol, host_bits } = slot.key;
    Address::new(address) == wanted.address
        && port == wanted.port
        && protocol == wanted.protocol
        && host_bits == wanted.host_bits
}

/// The key of a packet that has none of its own: by ranges and any port of its address, then by prefixes, longest
/// first.
#[inline(always)]
pub fn locate<E: Env>(env: &E, wanted: Wanted) -> Place {
    let place = locate_ports(env, wanted);
    if place != Place::NONE {
        return place;
    }
    let Some(meta) = env.meta() else { return Place::NONE };
    let list = match wanted.address.family() {
        Family::V4 => VIP_V4,
        Family::V6 => VIP_V6,
    };
    let Some(lengths) = env.lengths(lengths::index(list, meta.lengths[list])) else { return Place::NONE };
    let (high, low) = wanted.address.halves();
    for (at, length) in lengths.items.iter().take(VIP_LENGTHS_MAX).enumerate() {
        if at >= lengths.count as usize {
            break;
        }
        let address = Address::of_halves(high & length.mask[0], low & length.mask[1]);
        let key = Wanted { address, host_bits: length.host_bits as u8, ..wanted };
        if find_key(env, key).is_some() {
            return Place::of(&key);
        }
        let place = locate_ports(env, key);
        if place != Place::NONE {
            return place;
        }
    }
    Place::NONE
}

/// By the ranges of an address or prefix, else by its VIP of any port.
#[inline(always)]
fn locate_ports<E: Env>(env: &E, wanted: Wanted) -> Place {
    if wanted.protocol != protocol::TCP && wanted.protocol != protocol::UDP {
        return Place::NONE;
    }
    let any = Wanted { port: Be16(0), ..wanted };
    let Some(slot) = find_any(env, &any) else { return Place::NONE };
    if let Some(ranges) = env.vip_ranges(slot.ranges) {
        let port = wanted.port.host();
        // They do not overlap.
        let mut first = 0;
        for range in &ranges.0 {
            if range.contains(port) {
                first = range.first;
            }
        }
        if first != 0 {
            let (port, protocol) = (Be16::new(first), wanted.protocol | RANGE);
            return Place::of(&Wanted { port, protocol, ..wanted });
        }
    }
    if slot.entry.flags == 0 { Place::NONE } else { Place::of(&any) }
}

/// The slot of a key of any port: control leaves none of these to map `VIPS`.
#[inline(always)]
fn find_any<'e, E: Env>(env: &'e E, any: &Wanted) -> Option<&'e VipSlot> {
    let (high, low) = any.address.halves();
    let bucket = env.vip_bucket(directory::bucket(high, low, any.port, any.protocol, any.host_bits));
    for way in 0..WAYS {
        if let Some(slot) = env.vip_slot(bucket.way(way))
            && is_of(slot, any)
        {
            return Some(slot);
        }
    }
    None
}
