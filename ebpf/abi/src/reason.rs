//! Why a packet was not forwarded as usual. Documentation and metrics are generated from this list.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $index:literal, $name:literal, $fate:ident;)+) => {
        /// Index of map `REASONS`. Numbers are frozen once released; new ones go to the end, and may leave gaps.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $variant = $index,)+ }

        impl Reason {
            /// All, in index order.
            pub const ALL: [Self; { [$($index),+].len() }] = [$(Self::$variant),+];

            /// Name in metrics, logs and `lb show drops`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One line for the operator.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// What happens to the packet.
            #[inline(always)]
            pub const fn fate(self) -> Fate {
                match self { $(Self::$variant => Fate::$fate,)+ }
            }
        }
    };
}

/// What becomes of a packet that met a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Given to the kernel.
    Pass,
    /// Dropped.
    Drop,
    /// Answered by us.
    Answer,
    /// Sent to a backend.
    Forward,
}

reasons! {
    /// Sent on to a backend.
    Forwarded = 0, "forwarded", Forward;
    /// Not addressed to a VIP; the kernel has it untouched.
    NotOurs = 1, "not-ours", Pass;
    /// ICMP echo request to a VIP, answered.
    Echo = 2, "echo", Answer;
    /// Shorter than its Ethernet or VLAN header.
    MalformedEthernet = 3, "malformed-ethernet", Drop;
    /// IP header is short, has a wrong version or length.
    MalformedIp = 4, "malformed-ip", Drop;
    /// TCP header is short, has a wrong offset or impossible flags.
    MalformedTcp = 5, "malformed-tcp", Drop;
    /// UDP header is short or has a wrong length, or around a tunnel a wrong checksum.
    MalformedUdp = 6, "malformed-udp", Drop;
    /// IPv4 options or IPv6 extension headers on a packet to a VIP.
    IpOptions = 7, "ip-options", Drop;
    /// A fragment to a VIP: its ports cannot be known.
    Fragment = 8, "fragment", Drop;
    /// Time to live or hop limit ran out.
    Ttl = 9, "ttl", Drop;
    /// Source is on the deny list.
    Denied = 10, "denied", Drop;
    /// Source opened flows faster than allowed.
    RateLimited = 11, "rate-limited", Drop;
    /// The VIP's table names no backend.
    NoBackend = 12, "no-backend", Drop;
    /// The chosen backend is down and nobody took over.
    BackendDown = 13, "backend-down", Drop;
    /// The packet would exceed the MTU of the way out, and its sender was not told: it allows fragments, is ICMP itself,
    /// fits IPv6's least MTU, or too many were told in the last tick.
    Mtu = 14, "mtu", Drop;
    /// The driver left no room in front of the packet for the outer header.
    EncapHeadroom = 15, "encap-headroom", Drop;
    /// No route to the backend, forwarding is off on the way in, or there is no outer source address of its
    /// family.
    NoRoute = 16, "no-route", Drop;
    /// The next hop's Ethernet address is not known yet; XDP cannot ask for it, probes of the backend do.
    NoNeighbour = 17, "no-neighbour", Drop;
    /// No source port left for address translation.
    NatPortsExhausted = 18, "nat-ports-exhausted", Drop;
    /// Flow table full where a record was required.
    FlowTableFull = 19, "flow-table-full", Drop;
    /// Wrong SYN cookie.
    SynCookieBad = 20, "syn-cookie-bad", Drop;
    /// Maps were written by another version; everything passes.
    Abi = 21, "abi", Pass;
    /// Outer header taken off, what was inside given to the kernel.
    Decapsulated = 22, "decapsulated", Pass;
    /// ICMP error to a VIP that does not quote a packet of that VIP.
    MalformedIcmp = 23, "malformed-icmp", Drop;
    /// The packet would exceed the MTU of the way out, and its sender was told what fits.
    TooBig = 24, "too-big", Answer;
    /// Sent to a backend that is this box itself: the kernel has it untouched.
    Local = 25, "local", Pass;
    /// A backend's reply, translated back and sent to the client.
    NatReturned = 26, "nat-returned", Forward;
    /// An ICMP error about a translated flow, translated with it.
    NatError = 27, "nat-error", Forward;
    /// For a translating VIP, or for an address that sources are translated to, and of no flow that is known.
    NatUnknown = 28, "nat-unknown", Drop;
    /// SYN of a flood for a listener of this box, answered with a cookie; the kernel judges what comes back.
    SynCookie = 30, "syn-cookie", Answer;
    /// For a listener: the kernel has it untouched, on the core of the worker that owns its flow.
    Spread = 31, "spread", Pass;
}

impl Reason {
    /// The reason of a number; the numbers have gaps.
    pub fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u32 == number)
    }

    /// Whether the packet is dropped: [`Self::fate`] without a jump per reason, for every packet's last step.
    #[inline(always)]
    pub const fn drops(self) -> bool {
        DROPS >> self as u32 & 1 != 0
    }
}

/// Those that drop: bit n for number n.
const DROPS: u64 = {
    let (mut bits, mut at) = (0, 0);
    while at < Reason::ALL.len() {
        if matches!(Reason::ALL[at].fate(), Fate::Drop) {
            bits |= 1 << Reason::ALL[at] as u32;
        }
        at += 1;
    }
    bits
};

/// Entries of map `REASONS`: one beyond the last number.
pub const COUNT: u32 = Reason::ALL[Reason::ALL.len() - 1] as u32 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_rise_and_names_are_unique() {
        assert!(Reason::ALL.is_sorted_by(|one, next| (*one as u32) < *next as u32));
        for reason in &Reason::ALL {
            assert!((*reason as u32) < COUNT);
            assert_eq!(Reason::of_number(*reason as u32), Some(*reason));
            assert_eq!(reason.drops(), reason.fate() == Fate::Drop);
            assert!(Reason::ALL.iter().all(|other| other == reason || other.name() != reason.name()));
        }
        assert_eq!((Reason::of_number(29), Reason::of_number(COUNT)), (None, None), "a gap, and the end");
    }
}
