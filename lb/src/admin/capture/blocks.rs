//! The few blocks of pcapng that a capture is made of, written and, for the command line's summary, read.
//!
//! Little-endian; times in nanoseconds. Source: draft-ietf-opsawg-pcapng, sections 3 and 4.

use std::time::Duration;

use lb_abi::capture::CaptureCounters;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
/// Type of a packet's block.
pub(crate) const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_TIME_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;
const PACKET_VERDICT: u16 = 7;
/// A verdict of XDP: its return code follows, in 64 bits.
const VERDICT_XDP: u8 = 2;
/// Direction: inbound.
const INBOUND: u32 = 1;
const STATISTICS_RECEIVED: u16 = 4;
const STATISTICS_DROPPED: u16 = 5;
const STATISTICS_ACCEPTED: u16 = 6;
const STATISTICS_OS_DROPPED: u16 = 7;
const STATISTICS_DELIVERED: u16 = 8;

/// Bytes of a block around its body.
const FRAME_BYTES: usize = 12;
/// Longest block that is taken for one: packets are far shorter.
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Blocks, one after another.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

/// One packet's block.
pub(super) struct EnhancedPacket<'a> {
    /// Place of its interface among the interface blocks.
    pub(super) interface: u32,
    pub(super) at: Duration,
    /// Bytes on the wire.
    pub(super) length: u32,
    /// Those that were captured.
    pub(super) frame: &'a [u8],
    pub(super) comment: &'a str,
    /// Return code of the XDP program.
    pub(super) verdict: Option<u64>,
}

impl Writer {
    /// What was written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn section(&mut self, application: &str) {
        self.block(SECTION_HEADER, |body| {
            body.extend(BYTE_ORDER.to_le_bytes());
            // Version 1.0, a section of unknown length.
            body.extend([1, 0, 0, 0]);
            body.extend(u64::MAX.to_le_bytes());
            option(body, SECTION_APPLICATION, application.as_bytes());
            option(body, OPTION_END, &[]);
        });
    }

    pub(super) fn interface(&mut self, name: &str, snap: u32) {
        self.block(INTERFACE, |body| {
            body.extend(ETHERNET.to_le_bytes());
            body.extend([0, 0]);
            body.extend(snap.to_le_bytes());
            option(body, INTERFACE_NAME, name.as_bytes());
            option(body, INTERFACE_TIME_RESOLUTION, &[9]);
            option(body, OPTION_END, &[]);
        });
    }

    pub(super) fn packet(&mut self, packet: &EnhancedPacket<'_>) {
        let EnhancedPacket { interface, at, length, frame, comment, verdict } = packet;
        self.block(PACKET, |body| {
            body.extend(interface.to_le_bytes());
            time(body, *at);
            body.extend(size(frame.len()).to_le_bytes());
            body.extend(length.to_le_bytes());
            body.extend(*frame);
            pad(body);
            option(body, OPTION_COMMENT, comment.as_bytes());
            option(body, PACKET_FLAGS, &INBOUND.to_le_bytes());
            if let Some(verdict) = verdict {
                option(body, PACKET_VERDICT, &[&[VERDICT_XDP][..], &verdict.to_le_bytes()].concat());
            }
            option(body, OPTION_END, &[]);
        });
    }

    /// A tally, as statistics of an interface: looked at, wanted, written, lost for want of room, and over the rate
    /// are received, accepted, delivered, dropped, and dropped by the system.
    pub(super) fn statistics(&mut self, interface: u32, at: Duration, tally: &CaptureCounters) {
        self.block(STATISTICS, |body| {
            body.extend(interface.to_le_bytes());
            time(body, at);
            for (kind, value) in [
                (STATISTICS_RECEIVED, tally.looked_at),
                (STATISTICS_DROPPED, tally.ring_full),
                (STATISTICS_ACCEPTED, tally.wanted),
                (STATISTICS_OS_DROPPED, tally.over_rate),
                (STATISTICS_DELIVERED, tally.written),
            ] {
                option(body, kind, &value.to_le_bytes());
            }
            option(body, OPTION_END, &[]);
        });
    }

    fn block(&mut self, kind: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let mut body = Vec::new();
        write(&mut body);
        let length = size(body.len() + FRAME_BYTES).to_le_bytes();
        self.0.extend(kind.to_le_bytes());
        self.0.extend(length);
        self.0.append(&mut body);
        self.0.extend(length);
    }
}

/// Lengths here are of what we made, far below 2^32.
fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The high half goes first.
fn time(body: &mut Vec<u8>, at: Duration) {
    let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    body.extend(((nanoseconds >> 32) as u32).to_le_bytes());
    body.extend((nanoseconds as u32).to_le_bytes());
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// An option; a value beyond 65535 bytes is cut.
fn option(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    body.extend(kind.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(&value[..usize::from(length)]);
    pad(body);
}

/// The first whole block of a stream, if it is there; with its type.
///
/// # Errors
/// What is there is no block.
pub(crate) fn block(bytes: &[u8]) -> Result<Option<(u32, &[u8])>, String> {
    let Some(head) = bytes.first_chunk::<8>() else { return Ok(None) };
    let [kind, length] = [&head[..4], &head[4..]].map(le32);
    let length = length as usize;
    if !(FRAME_BYTES..=BLOCK_BYTES_MAX).contains(&length) || !length.is_multiple_of(4) {
        return Err(format!("the stream holds a block of {length} bytes, which is none of ours"));
    }
    Ok(bytes.get(..length).map(|block| (kind, block)))
}

/// The tally in a block of statistics; none: another block.
pub(crate) fn tally(block: &[u8]) -> Option<CaptureCounters> {
    if le32(block.get(..4)?) != STATISTICS {
        return None;
    }
    let mut options = block.get(20..block.len().checked_sub(4)?)?;
    let mut tally = CaptureCounters::default();
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let [kind, length] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_le_bytes);
        let padded = usize::from(length).next_multiple_of(4);
        let value = rest.get(..usize::from(length))?;
        options = rest.get(padded..)?;
        let place = match kind {
            STATISTICS_RECEIVED => &mut tally.looked_at,
            STATISTICS_DROPPED => &mut tally.ring_full,
            STATISTICS_ACCEPTED => &mut tally.wanted,
            STATISTICS_OS_DROPPED => &mut tally.over_rate,
            STATISTICS_DELIVERED => &mut tally.written,
            _ => continue,
        };
        *place = u64::from_le_bytes(*value.first_chunk()?);
    }
    Some(tally)
}

fn le32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().copied().map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALLY: CaptureCounters =
        CaptureCounters { looked_at: 9, wanted: 7, written: 4, ring_full: 2, over_rate: u64::MAX };

    fn all() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.section("lb");
        writer.interface("eth0", 128);
        writer.packet(&EnhancedPacket {
            interface: 0,
            at: Duration::from_nanos(0x1_2345_6789),
            length: 1500,
            frame: &[1, 2, 3, 4, 5],
            comment: "dropped",
            verdict: Some(1),
        });
        writer.statistics(0, Duration::from_secs(1), &TALLY);
        writer.take()
    }

    #[test]
    fn blocks_can_be_told_apart_however_they_are_cut() {
        let bytes = all();
        let mut rest = &bytes[..];
        let mut kinds = Vec::new();
        while let Some((kind, whole)) = block(rest).unwrap() {
            for cut in 0..whole.len() {
                assert_eq!(block(&whole[..cut]).unwrap(), None, "{cut}");
            }
            assert_eq!(whole[4..8], whole[whole.len() - 4..], "both lengths");
            kinds.push((kind, tally(whole)));
            rest = &rest[whole.len()..];
        }
        assert!(rest.is_empty());
        let expected = [(SECTION_HEADER, None), (INTERFACE, None), (PACKET, None), (STATISTICS, Some(TALLY))];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn a_packet_is_where_the_draft_says() {
        let bytes = all();
        let at = bytes.windows(4).position(|word| word == PACKET.to_le_bytes()).unwrap();
        let packet = &bytes[at..];
        assert_eq!(le32(&packet[12..]), 1, "high half of the time");
        assert_eq!(le32(&packet[16..]), 0x2345_6789);
        assert_eq!((le32(&packet[20..]), le32(&packet[24..])), (5, 1500));
        assert_eq!(packet[28..36], [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(packet[36..48], *b"\x01\0\x07\0dropped\0");
    }

    #[test]
    fn what_is_no_block_is_said() {
        assert!(block(&[0; 8]).is_err());
        assert!(block(&[6, 0, 0, 0, 13, 0, 0, 0]).is_err());
        assert!(block(&[6, 0, 0, 0, 0, 0, 0, 0x7f]).is_err());
        let mut cut = Writer::default();
        cut.statistics(0, Duration::ZERO, &TALLY);
        let bytes = cut.take();
        for end in 0..bytes.len() {
            _ = tally(&bytes[..end]);
        }
    }
}
