use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
    frame.extend_from_slice(payload);
    frame
}

fn preface() -> Vec<u8> {
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()
}

/// Whether `count` frames pass, and one more does not.
fn is_budget(kind: u8, flags: u8, payload: &[u8], count: u32, abuse: Abuse) {
    let now = Instant::now();
    let mut meter = Meter::of_client(Budgets::default());
    assert_eq!(meter.see(&preface(), now), Ok(()));
    let frame = frame(kind, flags, payload);
    assert_eq!(meter.see(&frame.repeat(count as usize), now), Ok(()), "{abuse:?}");
    assert_eq!(meter.see(&frame, now), Err(abuse));
    let later = now + Duration::from_secs(3600);
    assert_eq!(meter.see(b"", later), Err(abuse), "who went too far is not forgiven");
}

#[test]
fn row_50_budgets() {
    let budgets = Budgets::default();
    for (kind, flags, payload, count, abuse) in [
        (Kind::RST_STREAM, 0, &[0, 0, 0, 8][..], budgets.resets, Abuse::Resets),
        (Kind::PING, 0, &[0; 8], budgets.pings, Abuse::Pings),
        (Kind::PING, 1, &[0; 8], budgets.pings, Abuse::Pings),
        (Kind::SETTINGS, 0, &[], budgets.settings, Abuse::Settings),
        (Kind::SETTINGS, 0, &[0; 60], budgets.settings, Abuse::Settings),
        (Kind::DATA, 0, &[], budgets.empty_data, Abuse::EmptyData),
        (Kind::DATA, PADDED, &[0], budgets.empty_data, Abuse::EmptyData),
        (Kind::DATA, PADDED, &[3, 0, 0, 0], budgets.empty_data, Abuse::EmptyData),
        (Kind::HEADERS, 0x5, b"x", budgets.heads, Abuse::Heads),
        (Kind::WINDOW_UPDATE, 0, &[0, 0, 0, 1], budgets.window_updates, Abuse::WindowUpdates),
        (Kind::PRIORITY, 0, &[0; 5], budgets.priorities, Abuse::Priorities),
        (Kind::PRIORITY_UPDATE, 0, b"x", budgets.priorities, Abuse::Priorities),
        (Kind::GOAWAY, 0, &[0; 8], budgets.unknown, Abuse::Unknown),
        (Kind::PUSH_PROMISE, 0, &[0; 8], 0, Abuse::Promise),
        (0xff, 0xff, b"anything", budgets.unknown, Abuse::Unknown),
    ] {
        is_budget(kind, flags, payload, count, abuse);
    }
}

#[test]
fn row_46_lengths() {
    for (kind, flags, lengths) in [
        (Kind::PRIORITY, 0, &[0, 4, 6][..]),
        (Kind::RST_STREAM, 0, &[0, 3, 5]),
        (Kind::SETTINGS, 0, &[1, 5, 7, 59]),
        (Kind::SETTINGS, ACK, &[6]),
        (Kind::PING, ACK, &[0, 7, 9]),
        (Kind::GOAWAY, 0, &[0, 7]),
        (Kind::WINDOW_UPDATE, 0, &[0, 3, 5]),
    ] {
        for &length in lengths {
            is_budget(kind, flags, &[0; 60][..length], 0, Abuse::FrameSize);
        }
    }
}

#[test]
fn what_is_honest_is_not_counted() {
    let now = Instant::now();
    let mut meter = Meter::of_client(Budgets::default());
    assert_eq!(meter.see(&preface(), now), Ok(()));
    for _ in 0..5_000 {
        let mut bytes = frame(Kind::HEADERS, 0x4, b"block");
        bytes.extend(frame(Kind::WINDOW_UPDATE, 0, &[0, 0, 1, 0]));
        bytes.extend(frame(Kind::DATA, 0, b"data"));
        bytes.extend(frame(Kind::DATA, PADDED, &[1, b'x', 0]));
        bytes.extend(frame(Kind::DATA, END_STREAM, b""));
        assert_eq!(meter.see(&bytes, now), Ok(()));
        assert_eq!(meter.emitted(&frame(Kind::HEADERS, 0x5, b"block"), now), Ok(()));
    }
    // A download: both windows are told of each frame, and the path is measured.
    for _ in 0..5_000 {
        assert_eq!(meter.emitted(&frame(Kind::DATA, 0, b"data"), now), Ok(()));
        let mut answer = frame(Kind::WINDOW_UPDATE, 0, &[0, 0, 0, 4]).repeat(2);
        answer.extend(frame(Kind::PING, 0, &[0; 8]));
        assert_eq!(meter.see(&answer, now), Ok(()));
    }
}

#[test]
fn row_48_continuations() {
    let now = Instant::now();
    let mut meter = Meter::of_backend(Budgets::default());
    let headers = frame(Kind::HEADERS, 0, b"x");
    let more = frame(Kind::CONTINUATION, 0, b"x");
    for _ in 0..5 {
        assert_eq!(meter.see(&headers, now), Ok(()));
        assert_eq!(meter.see(&more.repeat(20), now), Ok(()));
    }
    let mut of_all = meter.clone();
    assert_eq!(meter.see(&more, now), Err(Abuse::Continuations));
    assert_eq!(of_all.see(&headers, now), Ok(()));
    assert_eq!(of_all.see(&more, now), Err(Abuse::Continuations), "over many blocks");
}

#[test]
fn row_48_header_blocks() {
    let now = Instant::now();
    let budgets = Budgets::new(&Limits { head_bytes: 16 << 10, ..Limits::default() });
    assert_eq!(budgets.block_bytes, 32 << 10);
    let (headers, more) =
        (frame(Kind::HEADERS, 0, &[b'x'; 16 << 10]), frame(Kind::CONTINUATION, 4, &[b'x'; 16 << 10]));
    let mut meter = Meter::of_backend(budgets);
    for _ in 0..10 {
        assert_eq!(meter.see(&headers, now), Ok(()));
        assert_eq!(meter.see(&more, now), Ok(()));
    }
    let mut single = meter.clone();
    assert_eq!(meter.see(&frame(Kind::CONTINUATION, 4, b"x"), now), Err(Abuse::HeaderBlock));
    let long = frame(Kind::HEADERS, 4, &[b'x'; (32 << 10) + 1]);
    assert_eq!(single.see(long.get(..9).unwrap(), now), Err(Abuse::HeaderBlock), "before it has come");
}

#[test]
fn row_50_resets_of_ours() {
    let now = Instant::now();
    let mut meter = Meter::of_client(Budgets::default());
    for code in [0, 2, 8, 10] {
        let reset = frame(Kind::RST_STREAM, 0, &[0, 0, 0, code]);
        assert_eq!(meter.emitted(&reset.repeat(1_000), now), Ok(()));
    }
    for code in [1, 3, 5, 7, 11] {
        let reset = frame(Kind::RST_STREAM, 0, &[0, 0, 0, code]);
        assert_eq!(meter.emitted(&reset.repeat(100), now), Ok(()));
    }
    let reset = frame(Kind::RST_STREAM, 0, &[0, 0, 0, 1]);
    assert_eq!(meter.emitted(&reset, now), Err(Abuse::ResetsEmitted));
    assert_eq!(meter.see(b"", now), Err(Abuse::ResetsEmitted));
}

#[test]
fn counts_are_halved_each_second() {
    let start = Instant::now();
    let mut meter = Meter::of_backend(Budgets::default());
    let reset = frame(Kind::RST_STREAM, 0, &[0; 4]);
    assert_eq!(meter.see(&reset.repeat(100), start), Ok(()));
    let mut at_once = meter.clone();
    assert_eq!(at_once.see(&reset, start + Duration::from_millis(999)), Err(Abuse::Resets));
    for second in 1..180 {
        let now = start + Duration::from_secs(second);
        assert_eq!(meter.see(&reset.repeat(50), now), Ok(()), "{second}");
    }
    // In all there is an end to it.
    let mut ends = (180..400).map(|second| meter.see(&reset.repeat(50), start + Duration::from_secs(second)));
    let passed = ends.by_ref().take_while(Result::is_ok).count();
    assert_eq!(100 + 50 * (179 + passed), 10_000);
    assert_eq!(ends.next(), Some(Err(Abuse::Resets)));
}

proptest! {
    /// The same bytes give the same verdict however they are cut.
    #[test]
    fn cuts_do_not_matter(
        frames in prop::collection::vec((0u8..11, any::<u8>(), 0usize..12), 0..400),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(any::<u16>(), 0..20),
        is_client in any::<bool>(),
    ) {
        let mut bytes = if is_client { preface() } else { Vec::new() };
        for (kind, flags, len) in frames {
            // Mostly lengths that pass, so that the budgets are reached.
            let len = match kind {
                _ if flags == 0xff => len,
                Kind::PRIORITY => 5,
                Kind::RST_STREAM | Kind::WINDOW_UPDATE => 4,
                Kind::SETTINGS => 0,
                Kind::PING | Kind::GOAWAY => 8,
                _ => len,
            };
            let kind = if kind == Kind::PUSH_PROMISE && flags != 0xff { Kind::PING + 5 } else { kind };
            bytes.extend(frame(kind, flags, &[flags; 12][..len]));
        }
        bytes.extend(garbage);
        let now = Instant::now();
        let budgets = Budgets { pings: 10, resets: 5, empty_data: 3, continuations: 9, ..Budgets::default() };
        let meter = if is_client { Meter::of_client(budgets) } else { Meter::of_backend(budgets) };
        let (mut whole, mut cut, mut single) = (meter.clone(), meter.clone(), meter);
        let verdict = whole.see(&bytes, now);
        let mut cuts: Vec<_> = cuts.iter().map(|&cut| usize::from(cut) % (bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut at = 0;
        let mut last = Ok(());
        for end in cuts {
            last = cut.see(&bytes[at..end], now);
            at = end;
        }
        prop_assert_eq!(last, verdict);
        for byte in &bytes {
            last = single.see(&[*byte], now);
        }
        prop_assert_eq!(last, verdict);
        // What was sent is found in the same way.
        let (mut whole, mut single) = (Meter::of_backend(budgets), Meter::of_backend(budgets));
        let verdict = whole.emitted(&bytes, now);
        last = Ok(());
        for byte in &bytes {
            last = single.emitted(&[*byte], now);
        }
        prop_assert_eq!(last, verdict);
    }
}
