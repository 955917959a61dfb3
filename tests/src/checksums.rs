//! Every checksum of a frame that can be found, each over the whole of what it covers; nothing is shared with the code
//! under test.
//!
//! Found are those of IPv4 headers, TCP, UDP, ICMP and ICMPv6, inside IP in IP, GUE variant 1 and what an ICMP error
//! quotes, too, where the quote is whole. Frames may be any bytes.

use std::ops::Range;

/// One checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Of what.
    pub of: Of,
    /// Where it stands.
    at: usize,
    covers: Range<usize>,
    /// A pseudo header, or nothing.
    pseudo: Vec<u8>,
}

/// What a checksum is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// An IPv4 header.
    Ipv4,
    /// TCP.
    Tcp,
    /// UDP, which may have none.
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
}

/// Whether it is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Right,
    /// It is not.
    Wrong,
    /// There is none: UDP only.
    Absent,
}

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 4;

/// All of a frame, from the outside in.
pub fn find(frame: &[u8]) -> Vec<Checksum> {
    let mut found = Vec::new();
    if let Some(at) = ip_at(frame) {
        _ = ip(frame, at, DEPTH_MAX, &mut found);
    }
    found
}

/// The states of all of them.
pub fn states(frame: &[u8]) -> Vec<(Of, State)> {
    find(frame).iter().map(|checksum| (checksum.of, checksum.state(frame))).collect()
}

/// Whether none is wrong.
pub fn are_right(frame: &[u8]) -> bool {
    find(frame).iter().all(|checksum| checksum.state(frame) != State::Wrong)
}

/// Makes all of them right, save those that are absent.
pub fn seal(frame: &mut [u8]) {
    for checksum in find(frame).iter().rev() {
        if checksum.state(frame) == State::Wrong {
            checksum.write(frame);
        }
    }
}

/// Where the IP header begins, behind at most two tags; none: no IP.
pub fn ip_at(frame: &[u8]) -> Option<usize> {
    let mut at = 12;
    for _ in 0..2 {
        if matches!(word(frame, at)?, 0x8100 | 0x88a8) {
            at += 4;
        }
    }
    matches!(word(frame, at)?, 0x0800 | 0x86dd).then_some(at + 2)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// `None`: nothing more can be found.
fn ip(frame: &[u8], at: usize, depth: usize, found: &mut Vec<Checksum>) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    let first = *frame.get(at)?;
    let (behind, end, protocol, ends) = match first >> 4 {
        4 => {
            let behind = at + usize::from(first & 15) * 4;
            let end = at + usize::from(word(frame, at + 2)?);
            if behind < at + 20 || end < behind || behind > frame.len() {
                return None;
            }
            found.push(Checksum { of: Of::Ipv4, at: at + 10, covers: at..behind, pseudo: Vec::new() });
            if word(frame, at + 6)? & 0x3fff != 0 {
                return None;
            }
            (behind, end, frame[at + 9], at + 12..at + 20)
        }
        6 => {
            let behind = at + 40;
            (behind, behind + usize::from(word(frame, at + 4)?), *frame.get(at + 6)?, at + 8..behind)
        }
        _ => return None,
    };
    // What is cut short, as quotes mostly are, cannot be summed up.
    let ends = frame.get(ends)?;
    let whole = end <= frame.len();
    let pseudo = |length: usize| [ends, &(length as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat();
    let is_v4 = first >> 4 == 4;
    match protocol {
        6 if whole && end - behind >= 20 => {
            let covers = behind..end;
            found.push(Checksum { of: Of::Tcp, at: behind + 16, pseudo: pseudo(covers.len()), covers });
        }
        17 if whole && end - behind >= 8 => {
            let length = usize::from(word(frame, behind + 4)?);
            if !(8..=end - behind).contains(&length) {
                return None;
            }
            found.push(Checksum {
                of: Of::Udp,
                at: behind + 6,
                covers: behind..behind + length,
                pseudo: pseudo(length),
            });
            if word(frame, behind + 2)? == 6080 {
                return ip(frame, behind + 8, depth, found);
            }
        }
        1 | 58 if whole && (protocol == 1) == is_v4 && end - behind >= 8 => {
            let covers = behind..end;
            let pseudo = if is_v4 { Vec::new() } else { pseudo(covers.len()) };
            found.push(Checksum { of: Of::Icmp, at: behind + 2, covers, pseudo });
            let is_error =
                if is_v4 { [3, 11, 12].contains(&frame[behind]) } else { (1..=4).contains(&frame[behind]) };
            if is_error {
                return ip(frame.get(..end)?, behind + 8, depth.min(1), found);
            }
        }
        4 | 41 if whole => return ip(frame, behind, depth, found),
        _ => {}
    }
    Some(())
}

impl Checksum {
    /// How it stands.
    pub fn state(&self, frame: &[u8]) -> State {
        if self.of == Of::Udp && word(frame, self.at) == Some(0) {
            State::Absent
        } else if self.sum(frame) == 0xffff {
            State::Right
        } else {
            State::Wrong
        }
    }

    fn write(&self, frame: &mut [u8]) {
        frame[self.at..self.at + 2].fill(0);
        let check = match !self.sum(frame) {
            0 if self.of == Of::Udp => 0xffff,
            check => check,
        };
        frame[self.at..self.at + 2].copy_from_slice(&check.to_be_bytes());
    }

    /// RFC 1071, read literally.
    fn sum(&self, frame: &[u8]) -> u16 {
        let mut sum = 0u64;
        for bytes in [&self.pseudo[..], &frame[self.covers.clone()]] {
            for pair in bytes.chunks(2) {
                sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Packet, SYN};

    #[test]
    fn what_is_built_is_right_and_what_is_bent_is_not() {
        let tcp = Packet::tcp("198.51.100.7:1", "192.0.2.1:80", SYN);
        let udp = Packet::udp("[2001:db8::7]:1", "[2001:db8::1]:53").payload(3);
        let quote = Packet::error("10.0.0.1:0", "192.0.2.1:0", [3, 4], &tcp, 400);
        for (packet, of) in [
            (tcp.clone(), vec![Of::Ipv4, Of::Tcp]),
            (tcp.clone().tag(0x8100, 7).tag(0x8100, 8), vec![Of::Ipv4, Of::Tcp]),
            (udp.clone(), vec![Of::Udp]),
            (udp.clone().inside("10.0.0.1", "10.0.0.2", 0), vec![Of::Ipv4, Of::Udp]),
            (tcp.inside("fd00::1", "fd00::2", 0).over_udp(50_000), vec![Of::Udp, Of::Ipv4, Of::Tcp]),
            (quote, vec![Of::Ipv4, Of::Icmp, Of::Ipv4, Of::Tcp]),
            (Packet::echo_request("[fd00::1]:0", "[fd00::2]:0"), vec![Of::Icmp]),
        ] {
            let mut frame = packet.build();
            let found = states(&frame);
            assert_eq!(found, of.into_iter().map(|of| (of, State::Right)).collect::<Vec<_>>(), "{packet:?}");
            let last = frame.len() - 1;
            frame[last] ^= 0x40;
            assert!(!are_right(&frame), "{packet:?}");
            seal(&mut frame);
            assert!(are_right(&frame), "{packet:?}");
        }
        assert_eq!(find(&[]), []);
    }
}
