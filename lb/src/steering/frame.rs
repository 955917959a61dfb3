//! A frame that was never on a wire: the packet of an operator's question.

use std::net::{IpAddr, Ipv6Addr};

use crate::model::{Question, QuestionProtocol};

/// Neither is anybody's: locally administered, no group.
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// The whole frame, with right lengths and checksums; its payload is zero.
pub(super) fn build(question: &Question) -> Vec<u8> {
    let Question { protocol, source, destination, ttl, length, .. } = question;
    let is_v4 = source.is_ipv4();
    let number = protocol.number(is_v4);
    let header_len = if is_v4 { 20 } else { 40 };
    let payload = length.saturating_sub(header_len);
    let mut frame = MACS.to_vec();
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0];
            header.extend(length.to_be_bytes());
            // Identification 0, don't fragment.
            header.extend([0, 0, 0x40, 0, *ttl, number, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let check = checksum(&header);
            header[10..12].copy_from_slice(&check);
            frame.extend(header);
        }
        (source, destination) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(payload.to_be_bytes());
            frame.extend([number, *ttl]);
            frame.extend(v6(source).octets());
            frame.extend(v6(destination).octets());
        }
    }
    let mut segment = transport(question, payload);
    segment.resize(payload.into(), 0);
    let mut summed = pseudo_header(question, number, payload);
    summed.extend(&segment);
    let check = checksum(&summed);
    let at = match protocol {
        QuestionProtocol::Tcp(_) => 16,
        QuestionProtocol::Udp => 6,
        QuestionProtocol::Echo => 2,
    };
    if let Some(place) = segment.get_mut(at..at + 2) {
        place.copy_from_slice(&check);
    }
    frame.extend(segment);
    frame
}

/// The header, its checksum zero.
fn transport(question: &Question, payload: u16) -> Vec<u8> {
    let ports = [question.source.port().to_be_bytes(), question.destination.port().to_be_bytes()].concat();
    match question.protocol {
        QuestionProtocol::Tcp(flags) => {
            // Sequence 1, acknowledgement 1, five words, a full window.
            let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
            [&ports[..], &rest].concat()
        }
        QuestionProtocol::Udp => [&ports[..], &payload.to_be_bytes(), &[0, 0]].concat(),
        // Echo request, identifier 1, sequence 1.
        QuestionProtocol::Echo if question.source.is_ipv4() => vec![8, 0, 0, 0, 0, 1, 0, 1],
        QuestionProtocol::Echo => vec![128, 0, 0, 0, 0, 1, 0, 1],
    }
}

/// What TCP, UDP and ICMPv6 sum up beside themselves (RFC 9293, 3.1; RFC 8200, 8.1). ICMPv4 sums nothing else.
fn pseudo_header(question: &Question, number: u8, payload: u16) -> Vec<u8> {
    match (question.source.ip(), question.destination.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) if question.protocol == QuestionProtocol::Echo => Vec::new(),
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = payload.to_be_bytes();
            [&source.octets()[..], &destination.octets(), &[0, number, high, low]].concat()
        }
        (source, destination) => {
            let [high, low] = payload.to_be_bytes();
            let rest = [0, 0, high, low, 0, 0, 0, number];
            [&v6(source).octets()[..], &v6(destination).octets(), &rest].concat()
        }
    }
}

/// The question's grammar keeps both of one family.
fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The Internet checksum (RFC 1071) of bytes whose own checksum field is zero.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET_LEN: usize = 14;

    fn frame(text: &str) -> Vec<u8> {
        build(&text.parse().unwrap())
    }

    #[test]
    fn lengths_are_what_was_asked_and_sums_are_right() {
        for text in [
            "tcp 198.51.100.7:1234 -> 192.0.2.53:53 flags=syn",
            "tcp [2001:db8::7]:1234 -> [2001:db8::1]:53 length=1280",
            "udp 198.51.100.7:1 -> 192.0.2.53:53 length=1501",
            "udp [2001:db8::7]:65535 -> [2001:db8::1]:53 length=49",
            "icmp 198.51.100.7 -> 192.0.2.53",
            "icmp 2001:db8::7 -> 2001:db8::1 length=3400",
        ] {
            let question: Question = text.parse().unwrap();
            let frame = frame(text);
            assert_eq!(frame.len(), ETHERNET_LEN + usize::from(question.length), "{text}");
            let is_v4 = question.source.is_ipv4();
            let (header, segment) = frame[ETHERNET_LEN..].split_at(if is_v4 { 20 } else { 40 });
            if is_v4 {
                assert_eq!(checksum(header), [0, 0], "{text}");
            }
            let number = question.protocol.number(is_v4);
            let mut summed = pseudo_header(&question, number, segment.len() as u16);
            summed.extend(segment);
            assert_eq!(checksum(&summed), [0, 0], "{text}");
        }
    }

    #[test]
    fn a_known_packet() {
        let frame = frame("tcp 198.51.100.7:1234 -> 192.0.2.53:53 flags=syn ttl=9");
        assert_eq!(frame[12..14], [8, 0]);
        assert_eq!((frame[22], frame[23]), (9, 6));
        assert_eq!(frame[26..34], [198, 51, 100, 7, 192, 0, 2, 53]);
        assert_eq!(frame[34..38], [0x04, 0xd2, 0, 53]);
        assert_eq!(frame[47], 0x02);
    }
}
