//! Two of our own against each other, with bodies both ways, narrow windows, small buffers, and wires that give what they
//! like: whoever acts only upon what he is told gets everything there all the same.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use lb_http2::{By, Code, Connection, Events, Flaw, Head, Request, Settings, Stream, TooLarge};
use proptest::prelude::*;

/// What one stream is to one side.
#[derive(Debug)]
struct Job {
    stream: Stream,
    /// Bytes that were sent, and those that are still to be; which they are depends on the stream and their place.
    sent: usize,
    left: usize,
    trailers: bool,
    came: usize,
    has_sent: bool,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct Jobs {
    jobs: BTreeMap<u32, Job>,
    /// Streams that have something to do.
    ready: VecDeque<Stream>,
    held: VecDeque<(Stream, usize)>,
}

fn byte(id: u32, at: usize) -> u8 {
    (at as u32 * 31 + id) as u8
}

impl Jobs {
    fn add(&mut self, stream: Stream, left: usize, trailers: bool, has_ended: bool) {
        let job = Job { stream, sent: 0, left, trailers, came: 0, has_sent: false, has_ended };
        self.jobs.insert(stream.id(), job);
        self.ready.push_back(stream);
    }
}

impl Events for Jobs {
    fn head(&mut self, stream: Stream, head: &Head<'_>, ends: bool) {
        if head.status() != 0 {
            assert!(!ends);
            return;
        }
        let len: usize = std::str::from_utf8(&head.path().unwrap()[1..]).unwrap().parse().unwrap();
        self.add(stream, len, len.is_multiple_of(2), ends);
    }
    fn too_large(&mut self, _: Stream, _: TooLarge, _: bool) {
        unreachable!("no head is");
    }
    fn data(&mut self, stream: Stream, data: &[u8], ends: bool) {
        let Some(job) = self.jobs.get_mut(&stream.id()) else { return };
        for (at, got) in data.iter().enumerate() {
            assert_eq!(*got, byte(stream.id(), job.came + at));
        }
        job.came += data.len();
        job.has_ended = ends;
        self.held.push_back((stream, data.len()));
    }
    fn trailers(&mut self, stream: Stream, _: &Head<'_>) {
        self.jobs.get_mut(&stream.id()).unwrap().has_ended = true;
    }
    fn reset(&mut self, stream: Stream, code: Code, by: By) {
        assert_eq!((code, by), (Code::CANCEL, By::Peer));
        self.jobs.remove(&stream.id());
    }
    fn rejected(&mut self, _: u32, flaw: Flaw) {
        unreachable!("{flaw:?}");
    }
    fn window(&mut self, stream: Stream) {
        self.ready.push_back(stream);
    }
    fn settings(&mut self) {}
    fn goaway(&mut self, _: u32, _: Code) {}
}

struct Side {
    connection: Connection,
    jobs: Jobs,
    is_server: bool,
}

impl Side {
    /// Does what one stream has to do; whether one had something.
    fn act(&mut self) -> bool {
        let Some(stream) = self.jobs.ready.pop_front() else { return false };
        let Some(job) = self.jobs.jobs.get_mut(&stream.id()) else { return true };
        if self.is_server {
            // The first time; later it has been sent.
            let _ = self.connection.send_response(stream, 200, false, |_| {});
        }
        let len = job.left.min(PIECE_BYTES);
        let data: Vec<u8> = (0..len).map(|at| byte(stream.id(), job.sent + at)).collect();
        let ends = len == job.left && !job.trailers;
        let sent = self.connection.send_data(stream, &data, ends).unwrap();
        job.sent += sent;
        job.left -= sent;
        job.has_sent = job.left == 0;
        if sent == len && !job.has_sent {
            // What was not tried is not told of.
            self.jobs.ready.push_back(stream);
        }
        if job.has_sent && job.trailers {
            self.connection.send_trailers(stream, |out| out.push(b"x", b"y").unwrap()).unwrap();
        }
        true
    }

    fn release(&mut self) -> bool {
        let Some((stream, len)) = self.jobs.held.pop_front() else { return false };
        self.connection.release(stream, len);
        true
    }

    /// Sends so many bytes to another.
    fn deliver(&mut self, other: &mut Self, len: usize) -> bool {
        let pending = self.connection.pending();
        let len = len.min(pending.len());
        other.connection.receive(&pending[..len], Instant::now(), &mut other.jobs).unwrap();
        if len > 0 {
            self.connection.consume(len);
            self.connection.resume(&mut self.jobs);
        }
        len > 0
    }
}

/// The largest body.
const BYTES_MAX: usize = 20_000;
/// The largest piece of one.
const PIECE_BYTES: usize = 1500;

fn settings() -> impl Strategy<Value = Settings> {
    (50..3000_u32, 50..3000_usize, prop_oneof![Just(0_u32), Just(256), Just(4096)]).prop_map(
        |(stream_window, out_bytes_max, table_bytes_max)| Settings {
            stream_window,
            connection_window: 0,
            out_bytes_max,
            table_bytes_max,
            budgets: lb_http2::Budgets { window_updates: u32::MAX, ..lb_http2::Budgets::default() },
            ..Settings::default()
        },
    )
}

fn ask(client: &mut Side, sends: usize, wants: usize) {
    let path = format!("/{wants}");
    let request =
        Request { method: b"POST", scheme: b"http", authority: b"a", path: path.as_bytes(), protocol: b"" };
    let stream = client.connection.send_request(&request, false, |_| {}).unwrap();
    client.jobs.add(stream, sends, sends.is_multiple_of(3), false);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everything_gets_there(
        (client_settings, server_settings) in (settings(), settings()),
        asked in prop::collection::vec((0..BYTES_MAX, 0..BYTES_MAX), 1..12),
        steps in prop::collection::vec((0..8_u8, 1..5000_usize), 0..400),
        resets in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let side = |connection, is_server| Side { connection, jobs: Jobs::default(), is_server };
        let mut client = side(Connection::client(client_settings), false);
        let mut server = side(Connection::server(server_settings), true);
        asked.iter().for_each(|&(sends, wants)| ask(&mut client, sends, wants));
        for (at, (step, len)) in steps.iter().enumerate() {
            let _ = match step {
                0 | 1 => client.deliver(&mut server, *len),
                2 | 3 => server.deliver(&mut client, *len),
                4 => client.act(),
                5 => server.act(),
                6 => client.release(),
                _ => server.release(),
            };
            if let (60, Some(which)) = (at % 100, resets.get(at / 100)) {
                let ids: Vec<u32> = client.jobs.jobs.keys().copied().collect();
                if !ids.is_empty() && let Some(job) = client.jobs.jobs.remove(which.get(&ids)) {
                    client.connection.send_reset(job.stream, Code::CANCEL);
                }
            }
        }
        while client.act() | server.act() | client.release() | server.release()
            | client.deliver(&mut server, 3000) | server.deliver(&mut client, 1777) {}
        for side in [&client, &server] {
            for (id, job) in &side.jobs.jobs {
                prop_assert!(job.has_sent && job.has_ended, "{} {:?}", id, job);
                let (sends, wants) = asked[*id as usize / 2];
                prop_assert_eq!(job.came, if side.is_server { sends } else { wants });
            }
            prop_assert!(side.connection.is_idle(), "{:?}", side.jobs);
        }
    }
}
