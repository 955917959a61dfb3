//! However bytes are cut, the same is told; and no bytes do harm.

use std::time::Instant;

use super::common::*;
use lb_http2::{Connection, Fault, Settings};
use proptest::prelude::*;

/// Frames that make sense more often than not.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![Just(0_u32), Just(1), Just(3), Just(5), 0..12_u32];
    let block = prop_oneof![
        Just(request("GET", "/")),
        Just(request("POST", "/a")),
        Just(field("x", "y")),
        Just([request("GET", "/"), vec![0x40, 1, b'x', 1, b'y', 0xbe]].concat()),
        Just(block(&[(":status", "200")])),
        Just([request("POST", "/"), field("content-length", "5")].concat()),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop_oneof![
        4 => (stream.clone(), block.clone(), any::<u8>()).prop_map(|(stream, block, flags)| {
            frame(HEADERS, if flags < 200 { flags & END_STREAM | END_HEADERS } else { flags }, stream, &block)
        }),
        3 => (stream.clone(), prop::collection::vec(any::<u8>(), 0..40), 0..16_u8)
            .prop_map(|(stream, data, flags)| frame(DATA, flags, stream, &data)),
        1 => (stream.clone(), block, 0..5_u8)
            .prop_map(|(stream, block, flags)| frame(CONTINUATION, flags, stream, &block)),
        1 => (stream.clone(), 0..100_000_u32).prop_map(|(stream, by)| number(WINDOW_UPDATE, stream, by)),
        1 => stream.clone().prop_map(|stream| number(RST_STREAM, stream, 8)),
        1 => (0..9_u16, any::<u32>()).prop_map(|(id, value)| setting(id, value & 0xffff)),
        1 => (0..2_u8).prop_map(|flags| frame(PING, flags, 0, b"12345678")),
        1 => (any::<u8>(), any::<u8>(), stream, prop::collection::vec(any::<u8>(), 0..30))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
    ]
}

/// All that one hears and sends of what comes in these pieces.
fn heard(mut connection: Connection, pieces: &[&[u8]]) -> (Vec<Told>, Vec<u8>, Option<Fault>) {
    let (mut log, now) = (Log::default(), Instant::now());
    for piece in pieces {
        if connection.receive(piece, now, &mut log).is_err() {
            break;
        }
    }
    let ends =
        log.told.into_iter().filter(|told| !matches!(told, Told::Data(_, data, false) if data.is_empty()));
    (ends.collect(), connection.pending().to_vec(), connection.fault())
}

fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.sort_unstable();
    at.push(bytes.len());
    let mut start = 0;
    at.into_iter().map(|end| &bytes[std::mem::replace(&mut start, end)..end]).collect()
}

fn client() -> Connection {
    let mut peer = Peer::client(Settings::default());
    let ask =
        lb_http2::Request { method: b"GET", scheme: b"http", authority: b"a", path: b"/", protocol: b"" };
    for _ in 0..3 {
        peer.connection.send_request(&ask, true, |_| {}).unwrap();
    }
    peer.sent();
    peer.connection
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_cut_is_the_same(
        frames in prop::collection::vec(any_frame(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        is_server in any::<bool>(),
    ) {
        let bytes = if is_server { [hello(), frames.concat()].concat() } else { frames.concat() };
        let start = || if is_server { Connection::server(Settings::default()) } else { client() };
        let whole = heard(start(), &[&bytes]);
        prop_assert_eq!(&heard(start(), &cut(&bytes, &cuts)), &whole);
        let single: Vec<_> = bytes.chunks(1).collect();
        prop_assert_eq!(&heard(start(), &single), &whole);
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), is_server in any::<bool>()) {
        let bytes = if is_server { [hello(), bytes].concat() } else { bytes };
        let mut connection = if is_server { Connection::server(Settings::default()) } else { client() };
        let mut log = Log::default();
        let _ = connection.receive(&bytes, Instant::now(), &mut log);
        prop_assert!(connection.heap_bytes() < 64 << 10);
    }

    /// Whatever comes, and whatever is done with it: windows and counts hold, and in the end nothing is left.
    #[test]
    fn whatever_is_done_with_it(
        steps in prop::collection::vec((any_frame(), any::<prop::sample::Index>(), 0..8_u8), 0..60),
    ) {
        let mut peer = Peer::server(Settings::default());
        for (bytes, which, action) in steps {
            if peer.receive(&bytes).is_err() {
                break;
            }
            if peer.log.streams.is_empty() {
                continue;
            }
            let stream = *which.get(&peer.log.streams);
            let connection = &mut peer.connection;
            match action {
                0 => drop(connection.send_response(stream, 103, false, |_| {})),
                1 => drop(connection.send_response(stream, 200, false, |_| {})),
                2 => drop(connection.send_response(stream, 200, true, |_| {})),
                3 => drop(connection.send_data(stream, &[b'x'; 70_000], true)),
                4 => drop(connection.send_trailers(stream, |_| {})),
                5 => connection.send_reset(stream, lb_http2::Code::CANCEL),
                6 => peer.log.held.drain(..).for_each(|(stream, len)| connection.release(stream, len)),
                _ => connection.resume(&mut peer.log),
            }
            peer.sent();
        }
        for stream in std::mem::take(&mut peer.log.streams) {
            peer.connection.send_reset(stream, lb_http2::Code::CANCEL);
        }
        prop_assert_eq!(peer.connection.streams(), 0);
        peer.sent();
        peer.connection.trim();
        let heap = peer.connection.heap_bytes();
        prop_assert!(heap < 2048, "{} bytes", heap);
    }
}
