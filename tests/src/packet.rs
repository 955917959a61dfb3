//! Frames for tests, built from scratch: every checksum is computed over the whole, nothing is shared with
//! the code under test.
#![expect(clippy::expect_used, reason = "a row that cannot be written is a failed test")]

use std::net::{IpAddr, SocketAddr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// FIN.
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;

/// What a frame carries above IP.
#[derive(Clone, Debug)]
enum Transport {
    Tcp {
        flags: u8,
        sequence: u32,
        acknowledged: u32,
        window: u16,
        options: Vec<u8>,
    },
    Udp,
    Echo {
        reply: bool,
    },
    /// An ICMP error: type, code and second word, and what it quotes.
    Error {
        kind: u8,
        code: u8,
        rest: u32,
        quote: Vec<u8>,
    },
}

/// An outer header.
#[derive(Clone, Copy, Debug)]
struct Outer {
    source: IpAddr,
    destination: IpAddr,
    label: u32,
    class: Option<u8>,
    /// Of a UDP header (GUE) between it and the packet.
    port: Option<u16>,
    /// Whether that has its checksum: over IPv6, where the packet's own checksum is there.
    summed: bool,
}

/// A frame in the making.
#[derive(Clone, Debug)]
pub struct Packet {
    destination_mac: Mac,
    source_mac: Mac,
    tags: Vec<(u16, u16)>,
    outer: Option<Outer>,
    source: SocketAddr,
    destination: SocketAddr,
    transport: Transport,
    ttl: u8,
    class: u8,
    dont_fragment: bool,
    fragment: Option<Fragment>,
    payload: usize,
    /// What the payload begins with.
    content: Vec<u8>,
}

/// Which piece of a packet a frame is.
#[derive(Clone, Copy, Debug)]
struct Fragment {
    /// Bytes before it, a multiple of 8.
    offset: u16,
    more: bool,
}

impl Packet {
    fn new(source: &str, destination: &str, transport: Transport) -> Self {
        Self {
            destination_mac: [0; 6],
            source_mac: [0; 6],
            tags: Vec::new(),
            outer: None,
            source: source.parse().expect("source address and port"),
            destination: destination.parse().expect("destination address and port"),
            transport,
            ttl: 61,
            class: 0,
            dont_fragment: false,
            fragment: None,
            payload: 32,
            content: Vec::new(),
        }
    }

    /// TCP with flags.
    pub fn tcp(source: &str, destination: &str, flags: u8) -> Self {
        let (sequence, acknowledged, window, options) = (7, 9, 0x2000, Vec::new());
        Self::new(source, destination, Transport::Tcp { flags, sequence, acknowledged, window, options })
    }

    /// UDP.
    pub fn udp(source: &str, destination: &str) -> Self {
        Self::new(source, destination, Transport::Udp)
    }

    /// An ICMP echo request; the ports of both addresses are not used.
    pub fn echo_request(source: &str, destination: &str) -> Self {
        Self::new(source, destination, Transport::Echo { reply: false })
    }

    /// An ICMP error that quotes the first `bytes` of another packet, from its IP header on; the ports of both
    /// addresses are not used.
    pub fn error(
        source: &str,
        destination: &str,
        [kind, code]: [u8; 2],
        quoted: &Self,
        bytes: usize,
    ) -> Self {
        let mut quote = quoted.build().split_off(quoted.ip_at());
        quote.truncate(bytes);
        Self::icmp_error(source, destination, (kind, code, 0), &quote)
    }

    /// An ICMP error with a type, a code and a second word, which quotes bytes; the ports of both addresses are not
    /// used.
    pub fn icmp_error(
        source: &str,
        destination: &str,
        (kind, code, rest): (u8, u8, u32),
        quote: &[u8],
    ) -> Self {
        Self::new(source, destination, Transport::Error { kind, code, rest, quote: quote.to_vec() })
            .payload(0)
    }

    /// IP protocol number of what is above (inner) IP.
    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp => 17,
            Transport::Echo { .. } | Transport::Error { .. } if self.source.is_ipv4() => 1,
            Transport::Echo { .. } | Transport::Error { .. } => 58,
        }
    }

    /// Source address and port.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// Destination address and port.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// Ethernet destination and source.
    pub fn macs(mut self, destination: Mac, source: Mac) -> Self {
        (self.destination_mac, self.source_mac) = (destination, source);
        self
    }

    /// One more VLAN tag, inside those before: its type and its VLAN.
    pub fn tag(mut self, kind: u16, vlan: u16) -> Self {
        self.tags.push((kind, vlan));
        self
    }

    /// No VLAN tags.
    pub fn untagged(mut self) -> Self {
        self.tags.clear();
        self
    }

    /// Inside an outer header; the flow label is for IPv6.
    pub fn inside(mut self, source: &str, destination: &str, label: u32) -> Self {
        let (source, destination) = (parse(source), parse(destination));
        self.outer = Some(Outer { source, destination, label, class: None, port: None, summed: true });
        self
    }

    /// The outer header is followed by UDP from a port to 6080 (GUE variant 1).
    pub fn over_udp(mut self, port: u16) -> Self {
        self.outer = self.outer.map(|outer| Outer { port: Some(port), ..outer });
        self
    }

    /// The UDP around it has no checksum over IPv6 either.
    pub fn unsummed(mut self) -> Self {
        self.outer = self.outer.map(|outer| Outer { summed: false, ..outer });
        self
    }

    /// Traffic class of the outer header, where it is not the inner one's.
    pub fn outer_class(mut self, class: u8) -> Self {
        self.outer = self.outer.map(|outer| Outer { class: Some(class), ..outer });
        self
    }

    /// Time to live or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With other ends: addresses and ports.
    pub fn ends(mut self, source: &str, destination: &str) -> Self {
        self.source = source.parse().expect("source address and port");
        self.destination = destination.parse().expect("destination address and port");
        self
    }

    /// One hop on.
    pub fn aged(mut self) -> Self {
        self.ttl -= 1;
        self
    }

    /// Type of service or traffic class.
    pub fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    /// Don't-fragment, of the (inner) IPv4 header.
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// Bytes above the transport header.
    pub fn payload(mut self, bytes: usize) -> Self {
        self.payload = bytes;
        self
    }

    /// What the bytes above the transport header begin with; they are at least as many.
    pub fn content(mut self, content: &[u8]) -> Self {
        self.content = content.to_vec();
        self.payload = self.payload.max(content.len());
        self
    }

    /// A fragment: bytes before it, and whether more follow. What it carries is what the whole packet would.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some(Fragment { offset, more });
        self
    }

    /// A packet the other way; that to an echo request is its reply.
    pub fn answered(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.destination);
        if let Transport::Echo { reply } = &mut self.transport {
            *reply = true;
        }
        self
    }

    /// The answer to this echo request, sent with TTL 64.
    pub fn reply(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.destination);
        std::mem::swap(&mut self.source_mac, &mut self.destination_mac);
        self.transport = Transport::Echo { reply: true };
        self.ttl = 64;
        self
    }

    /// TCP's sequence number.
    pub fn sequence(mut self, number: u32) -> Self {
        if let Transport::Tcp { sequence, .. } = &mut self.transport {
            *sequence = number;
        }
        self
    }

    /// TCP's acknowledgement number.
    pub fn acknowledged(mut self, number: u32) -> Self {
        if let Transport::Tcp { acknowledged, .. } = &mut self.transport {
            *acknowledged = number;
        }
        self
    }

    /// TCP's options: a multiple of four bytes.
    pub fn options(mut self, bytes: &[u8]) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = bytes.to_vec();
        }
        self
    }

    /// The SYN-ACK to this SYN, with a sequence number, a window and an MSS; sent with TTL 64 and nothing copied.
    pub fn syn_ack(mut self, sequence: u32, window: u16, mss: u16) -> Self {
        if let Transport::Tcp { sequence: of_syn, .. } = self.transport {
            let options = [&[2, 4][..], &mss.to_be_bytes()].concat();
            let acknowledged = of_syn.wrapping_add(1);
            self.transport = Transport::Tcp { flags: SYN | ACK, sequence, acknowledged, window, options };
        }
        std::mem::swap(&mut self.source, &mut self.destination);
        std::mem::swap(&mut self.source_mac, &mut self.destination_mac);
        (self.ttl, self.class, self.dont_fragment, self.payload) = (64, 0, true, 0);
        self
    }

    /// Offset of the (outer) IP header in the frame.
    pub fn ip_at(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let (protocol, transport) = self.above_ip();
        let mut inner = header(
            self.source.ip(),
            self.destination.ip(),
            protocol,
            self.ttl,
            self.class,
            0,
            transport.len(),
        );
        // An inner header is any host's: it has no reason to set a flow label.
        if inner[0] == 0x45 && !self.dont_fragment {
            let fragment = self.fragment.map_or(0, |part| (u16::from(part.more) << 13) | (part.offset / 8));
            inner[6..8].copy_from_slice(&fragment.to_be_bytes());
            seal(&mut inner);
        }
        inner.extend(transport);
        let packet = match self.outer {
            None => inner,
            Some(outer) => {
                let class = outer.class.unwrap_or(self.class);
                let (protocol, body) = outer.around(self.source.is_ipv4(), inner);
                let mut packet =
                    header(outer.source, outer.destination, protocol, 64, class, outer.label, body.len());
                packet.extend(body);
                packet
            }
        };
        let mut frame = Vec::new();
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        for (kind, vlan) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        let kind: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        frame.extend(kind.to_be_bytes());
        frame.extend(packet);
        frame
    }

    /// What follows the IP header: its number, its bytes.
    fn above_ip(&self) -> (u8, Vec<u8>) {
        match self.fragment {
            // RFC 8200, 4.5.
            Some(Fragment { offset, more }) if self.source.is_ipv6() => {
                let mut bytes = vec![self.protocol(), 0];
                bytes.extend((offset | u16::from(more)).to_be_bytes());
                bytes.extend([0, 0, 0x12, 0x34]);
                bytes.extend(self.transport());
                (44, bytes)
            }
            _ => (self.protocol(), self.transport()),
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let v4 = self.source.is_ipv4();
        let check_at = match &self.transport {
            Transport::Tcp { flags, sequence, acknowledged, window, options } => {
                bytes.extend(self.source.port().to_be_bytes());
                bytes.extend(self.destination.port().to_be_bytes());
                bytes.extend([*sequence, *acknowledged].map(u32::to_be_bytes).concat());
                bytes.extend([0x50 + ((options.len() as u8 / 4) << 4), *flags]);
                bytes.extend(window.to_be_bytes());
                bytes.extend([0, 0, 0, 0]);
                bytes.extend(options);
                16
            }
            Transport::Udp => {
                bytes.extend(self.source.port().to_be_bytes());
                bytes.extend(self.destination.port().to_be_bytes());
                bytes.extend((8 + self.payload as u16).to_be_bytes());
                bytes.extend([0, 0]);
                6
            }
            &Transport::Echo { reply } => {
                let kind = match (v4, reply) {
                    (true, false) => 8,
                    (true, true) => 0,
                    (false, false) => 128,
                    (false, true) => 129,
                };
                bytes.extend([kind, 0, 0, 0, 0x12, 0x34, 0, 1]);
                2
            }
            Transport::Error { kind, code, rest, quote } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(rest.to_be_bytes());
                bytes.extend(quote);
                2
            }
        };
        bytes.extend(&self.content);
        bytes.extend((self.content.len()..self.payload).map(|at| at as u8));
        let check = match self.protocol() {
            1 => checksum(&bytes),
            protocol => checksum(&with_pseudo(self.source.ip(), self.destination.ip(), protocol, &bytes)),
        };
        let check = match (check, &self.transport) {
            // Zero would mean that there is none (RFC 768).
            (0, Transport::Udp) => 0xffff,
            (check, _) => check,
        };
        bytes[check_at..check_at + 2].copy_from_slice(&check.to_be_bytes());
        bytes
    }
}

impl Outer {
    /// What stands behind the outer IP header, and its protocol number.
    fn around(&self, is_v4: bool, inner: Vec<u8>) -> (u8, Vec<u8>) {
        let Some(port) = self.port else { return (if is_v4 { 4 } else { 41 }, inner) };
        let mut body = [port, 6080, 8 + inner.len() as u16, 0].map(u16::to_be_bytes).concat();
        body.extend(inner);
        if self.summed && self.source.is_ipv6() {
            let check = match checksum(&with_pseudo(self.source, self.destination, 17, &body)) {
                0 => 0xffff,
                check => check,
            };
            body[6..8].copy_from_slice(&check.to_be_bytes());
        }
        (17, body)
    }
}

/// Gives a frame of TCP, whose checksums must be right, another sequence number; `ip_at` is where its IP header is.
/// `None`: they are not.
pub fn with_sequence(frame: &[u8], ip_at: usize, number: u32) -> Option<Vec<u8>> {
    let (link, packet) = frame.split_at_checked(ip_at)?;
    let is_v4 = packet.first()? >> 4 == 4;
    let header_len = if is_v4 { 20 } else { 40 };
    let (header, tcp) = packet.split_at_checked(header_len)?;
    let addresses = if is_v4 { &header[12..20] } else { &header[8..40] };
    let summed = |tcp: &[u8]| {
        let pseudo = [addresses, &(tcp.len() as u32).to_be_bytes(), &[0, 0, 0, 6], tcp].concat();
        checksum(&pseudo)
    };
    if tcp.len() < 20 || summed(tcp) != 0 || (is_v4 && checksum(header) != 0) {
        return None;
    }
    let mut tcp = tcp.to_vec();
    tcp[4..8].copy_from_slice(&number.to_be_bytes());
    tcp[16..18].fill(0);
    let check = summed(&tcp);
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
    Some([link, header, &tcp].concat())
}

/// A pseudo header (RFC 9293, 3.1; RFC 8200, 8.1) and what it is for.
fn with_pseudo(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> Vec<u8> {
    let mut summed = [octets(source), octets(destination)].concat();
    summed.extend((bytes.len() as u32).to_be_bytes());
    summed.extend([0, 0, 0, protocol]);
    summed.extend(bytes);
    summed
}

/// An IP header before `payload` bytes; IPv4 with don't-fragment and identification 0.
fn header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ttl: u8,
    class: u8,
    label: u32,
    payload: usize,
) -> Vec<u8> {
    let mut header = Vec::new();
    if source.is_ipv4() {
        header.extend([0x45, class]);
        header.extend((20 + payload as u16).to_be_bytes());
        header.extend([0, 0, 0x40, 0, ttl, protocol, 0, 0]);
    } else {
        header.extend((6 << 28 | u32::from(class) << 20 | label & 0xf_ffff).to_be_bytes());
        header.extend((payload as u16).to_be_bytes());
        header.extend([protocol, ttl]);
    }
    header.extend(octets(source));
    header.extend(octets(destination));
    seal(&mut header);
    header
}

/// Computes the checksum of an IPv4 header of any length anew; leaves IPv6 alone.
pub fn seal(header: &mut [u8]) {
    if header[0] >> 4 == 4 {
        header[10..12].fill(0);
        let check = checksum(&header[..usize::from(header[0] & 15) * 4]);
        header[10..12].copy_from_slice(&check.to_be_bytes());
    }
}

/// RFC 1071, read literally.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn parse(address: &str) -> IpAddr {
    address.parse().expect("an IP address")
}
