use std::{
    fs,
    io::{Read, pipe},
    net::UdpSocket,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    config::{AccessLog as Wanted, LogInclude, LogStyle, LogTarget, Protocol, SAMPLE_ALL},
    log::{Draft, Facts, Text},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("lb-access-log-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn start(target: LogTarget) -> (AccessLog, AccessLogSetup) {
    let style = LogStyle::Json(LogInclude::default());
    let wanted = Wanted { style, target, sample_ppm: SAMPLE_ALL };
    let (log, mut setups) = AccessLog::start(Some(&wanted), 1).unwrap();
    (log, setups.pop().unwrap().unwrap())
}

fn record(draft: &mut Draft, path: &str) {
    draft.clear();
    draft.note(Text::Path, path.as_bytes());
}

fn facts(setup: &AccessLogSetup) -> Facts {
    Facts {
        begun_us: setup.epoch.elapsed().as_micros() as u64,
        client: "198.51.100.7:40000".parse().unwrap(),
        protocol: Protocol::Http,
        worker: 0,
        version: None,
        status: 200,
        attempts: 0,
        reused: false,
        reason: None,
        received: 0,
        sent: 0,
        sent_head: 0,
        head_us: None,
        queue_us: None,
        connect_us: None,
        first_byte_us: None,
        total_us: 1,
    }
}

/// Notes one record, as a worker does in a turn of its own.
fn note(setup: &mut AccessLogSetup, path: &str) {
    let mut draft = Draft::default();
    record(&mut draft, path);
    let facts = facts(setup);
    assert!(setup.sender.push(draft.encode(&facts)));
    if setup.sender.must_wake() {
        event::ring(&setup.bell);
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn paths(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let path = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["path"].as_str().unwrap().to_owned()
    };
    text.lines().map(path).collect()
}

#[test]
fn a_sleeping_writer_is_woken_for_each_line() {
    let directory = directory("woken");
    let file = directory.join("access.log");
    let (log, mut setup) = start(LogTarget::File(file.clone()));
    for at in 0..20 {
        note(&mut setup, &format!("/{at}"));
        wait_until("the line is there", || log.metrics.lines.value() == at + 1);
        // Now and then long enough to fall asleep.
        thread::sleep(Duration::from_millis(at * 2));
    }
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    log.finish();
    assert_eq!(paths(&file), (0..20).map(|at| format!("/{at}")).collect::<Vec<_>>());
    let text = fs::read_to_string(&file).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let time: jiff::Timestamp = last["time"].as_str().unwrap().parse().unwrap();
    assert!((before.as_secs() as i64 - time.as_second()).abs() <= 60, "{time} is the wall clock's");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_renamed_file_keeps_its_lines_and_the_next_ones_go_to_a_new_one() {
    let directory = directory("rotated");
    let (file, old) = (directory.join("access.log"), directory.join("access.log.1"));
    let (log, mut setup) = start(LogTarget::File(file.clone()));
    note(&mut setup, "/1");
    wait_until("the line is there", || log.metrics.lines.value() == 1);
    fs::rename(&file, &old).unwrap();
    note(&mut setup, "/2");
    wait_until("the line is there", || log.metrics.lines.value() == 2);
    log.reopen();
    wait_until("there is a new file", || file.exists());
    note(&mut setup, "/3");
    log.finish();
    assert_eq!(paths(&old), ["/1", "/2"]);
    assert_eq!(paths(&file), ["/3"]);
    fs::remove_dir_all(directory).unwrap();
}

fn wanted(target: LogTarget, include: LogInclude) -> Wanted {
    Wanted { style: LogStyle::Json(include), target, sample_ppm: SAMPLE_ALL }
}

#[test]
fn a_change_writes_elsewhere_and_loses_no_line() {
    let directory = directory("turn");
    let (one, two) = (directory.join("one.log"), directory.join("two.log"));
    let first = wanted(LogTarget::File(one.clone()), LogInclude::default());
    let second = wanted(LogTarget::File(two.clone()), LogInclude::default());
    let (log, mut setup) = start(first.target.clone());
    let turn = |now: Option<&Wanted>, next: Option<&Wanted>| {
        assert!(log.turn(Turn::prepare(now, next).unwrap().unwrap()));
    };
    let mut noted = 0;
    for at in 0..6 {
        for _ in 0..100 {
            noted += 1;
            note(&mut setup, &format!("/{noted}"));
        }
        // Whatever waits is written to the old one, which is closed then.
        let (now, next) = if at % 2 == 0 { (&first, &second) } else { (&second, &first) };
        turn(Some(now), Some(next));
        assert_eq!(paths(&one).len() + if at > 0 || two.exists() { paths(&two).len() } else { 0 }, noted);
    }
    // Another form at the same place.
    let other = wanted(LogTarget::File(one.clone()), LogInclude { query: true, ..LogInclude::default() });
    turn(Some(&first), Some(&other));
    note(&mut setup, "/at-one");
    turn(Some(&other), None);
    assert_eq!(paths(&one).last().unwrap(), "/at-one");
    // A late one of a log that is no more is counted.
    note(&mut setup, "/late");
    wait_until("it is counted", || log.metrics.failed.value() == 1);
    turn(None, Some(&second));
    note(&mut setup, "/again");
    log.finish();
    assert_eq!(paths(&two).last().unwrap(), "/again");
    assert_eq!(log.metrics.lines.value() as usize, noted + 2);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_turn_that_is_not_made_leaves_no_file() {
    let directory = directory("unmade");
    let (there, other) = (directory.join("there.log"), directory.join("other.log"));
    fs::write(&there, "").unwrap();
    for file in [&there, &other] {
        let next = wanted(LogTarget::File(file.clone()), LogInclude::default());
        assert!(Turn::prepare(Some(&next), Some(&next)).unwrap().is_none(), "nothing is to be done");
        drop(Turn::prepare(None, Some(&next)).unwrap().unwrap());
    }
    assert!(there.exists() && !other.exists());
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn another_worker_may_come_and_one_may_go() {
    let directory = directory("queues");
    let file = directory.join("access.log");
    let (log, mut setup) = start(LogTarget::File(file.clone()));
    let mut other = log.queue().unwrap();
    note(&mut other, "/other");
    drop(other);
    wait_until("its line is there", || log.metrics.lines.value() == 1);
    note(&mut setup, "/own");
    log.finish();
    assert_eq!(paths(&file), ["/other", "/own"]);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_full_disk_is_counted_and_never_stops_the_writer() {
    let (log, mut setup) = start(LogTarget::File("/dev/full".into()));
    for at in 1..=3 {
        note(&mut setup, "/lost");
        wait_until("the line is counted", || log.metrics.failed.value() == at);
    }
    assert_eq!(log.metrics.lines.value(), 0);
    log.finish();
}

#[test]
fn a_line_that_was_torn_does_not_spoil_the_next() {
    // A small pipe that nobody reads takes a part; then its reader takes all.
    let (mut reader, writer) = pipe().unwrap();
    let nonblocking = rustix::fs::fcntl_getfl(&writer).unwrap() | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&writer, nonblocking).unwrap();
    let capacity = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    let mut stream = sink::Stream::new(std::os::fd::OwnedFd::from(writer).into());
    let long = [vec![b'a'; capacity - 10], b"\n".to_vec(), vec![b'b'; 20], b"\n".to_vec()].concat();
    let written = stream.write(&long);
    assert_eq!((written.lines, written.error.unwrap().kind()), (1, std::io::ErrorKind::WouldBlock));
    let mut taken = vec![0; capacity];
    reader.read_exact(&mut taken).unwrap();
    let written = stream.write(b"c\n");
    assert_eq!((written.lines, written.error.is_none()), (1, true));
    drop(stream);
    reader.read_to_end(&mut taken).unwrap();
    let lines: Vec<_> = taken.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines[1..], [&[b'b'; 9][..], b"c", b""]);
}

#[test]
fn a_broken_pipe_is_an_error_and_no_signal() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut stream = sink::Stream::new(std::os::fd::OwnedFd::from(writer).into());
    for _ in 0..2 {
        let written = stream.write(b"a\nb\n");
        assert_eq!((written.lines, written.error.unwrap().kind()), (0, std::io::ErrorKind::BrokenPipe));
    }
}

#[test]
fn syslog_messages_are_of_rfc_5424() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let (log, mut setup) = start(LogTarget::SyslogUdp(receiver.local_addr().unwrap()));
    note(&mut setup, "/\n<1>x");
    let mut buffer = [0; 2048];
    let len = receiver.recv(&mut buffer).unwrap();
    let message = std::str::from_utf8(&buffer[..len]).unwrap();
    let fields: Vec<_> = message.splitn(8, ' ').collect();
    assert_eq!((fields[0], fields[3], fields[5], fields[6]), ("<134>1", "lb", "access", "-"));
    let _: jiff::Timestamp = fields[1].parse().unwrap();
    assert_eq!(fields[4], std::process::id().to_string());
    let line: serde_json::Value = serde_json::from_str(fields[7]).unwrap();
    assert_eq!(line["path"], "/\n<1>x");
    log.finish();
}

#[test]
fn a_syslog_daemon_may_be_started_anew() {
    let directory = directory("syslog");
    let path = directory.join("log");
    let mut buffer = [0; 64];
    let receiver = UnixDatagram::bind(&path).unwrap();
    let mut local = sink::Local::open(path.clone()).unwrap();
    local.send(b"one").unwrap();
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 3);
    drop(receiver);
    fs::remove_file(&path).unwrap();
    assert!(local.send(b"lost").is_err());
    let receiver = UnixDatagram::bind(&path).unwrap();
    local.send(b"three").unwrap();
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_cannot_be_opened_is_said_at_once() {
    let wanted = Wanted {
        style: LogStyle::Json(LogInclude::default()),
        target: LogTarget::File("/nowhere/access.log".into()),
        sample_ppm: SAMPLE_ALL,
    };
    let error = AccessLog::start(Some(&wanted), 1).err().unwrap();
    assert!(
        format!("{error:#}").starts_with("log.file = \"/nowhere/access.log\": No such file"),
        "{error:#}"
    );
}
