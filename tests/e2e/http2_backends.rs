//! Backends that break HTTP/2, or stretch it, of h2's and hyperframe's making (PyPI): what their clients get.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::{
    curl::{Curl, Failure},
    daemon::Daemon,
    pattern,
    process::Process,
    requirement,
    scene::{self, Scene},
    wait::{self, PATIENCE},
};

const BACKEND: &str = include_str!("h2/backend.py");

/// The port says which pool, the path what its backend does.
const CONFIG: &str = r#"
[listener.clear]
bind = ["10.77.0.2:8080"]
protocol = "http"
h2c = true
pool = "p6000"

[limits]
connect_timeout = "1s"
"#;

/// Ports of backends; what each grants its clients stands in the script.
const PLAIN: u16 = 6000;
const WINDOW_OF_NOTHING: u16 = 6001;
const ONE_AT_ONCE: u16 = 6002;
const NONE_THEN_ONE: u16 = 6003;
const NONE_AT_ONCE: u16 = 6004;
const OLD: u16 = 6005;

/// How clients speak.
const WAYS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    /// A whole answer.
    Whole(u16, String),
    /// A head, and less than it promised.
    Broken,
}

impl Got {
    const fn status(&self) -> u16 {
        match self {
            Self::Whole(status, _) => *status,
            Self::Broken => 0,
        }
    }
}

/// An answer of a backend.
fn whole(status: u16, body: &str) -> Got {
    Got::Whole(status, body.to_owned())
}

/// An answer of ours, for this reason.
fn ours(reason: &str) -> Got {
    Got::Whole(502, format!("502 Bad Gateway: {reason}\n"))
}

/// A Python with h2; `None`: it is not there, which was said.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default();
    let python = root.join("target/tests/h2/bin/python");
    requirement::is_file_there(&python.display().to_string(), "python3-venv; then `cargo xtask setup`")
        .then_some(python)
}

struct Site<'a> {
    scene: &'a Scene,
    daemon: Daemon<'a>,
    _backend: Process,
}

impl<'a> Site<'a> {
    fn set(scene: &'a Scene, python: &Path) -> Result<Self> {
        let file = scene.directory().join("backend.py");
        fs::write(&file, BACKEND)?;
        let b1 = &scene.topology().b1;
        let mut command: Command = b1.netns.command(python);
        command.arg(file).arg(b1.v4.to_string());
        let mut backend = Process::spawn("backend", command, &scene.log("backend"))?;
        let log = scene.log("backend");
        backend.wait_until("backend", PATIENCE, || {
            ensure!(fs::read_to_string(&log)?.contains("ready"));
            Ok(())
        })?;
        let mut config = CONFIG.to_owned();
        for port in PLAIN..=OLD {
            config += &format!("[pool.p{port}]\nprotocol = \"h2\"\nbackends = [\"10.77.0.11:{port}\"]\n");
            config += &format!(
                "[route.p{port}]\nlistener = \"clear\"\nhost = [\"p{port}.test\"]\npool = \"p{port}\"\n"
            );
        }
        Ok(Self { scene, daemon: Daemon::start(scene, &config)?, _backend: backend })
    }

    fn curl(&self, way: &str, port: u16) -> Curl {
        let host = format!("Host: p{port}.test");
        Curl::within(&self.scene.topology().client.netns).with(&[way, "-H", &host])
    }

    fn ask(&self, way: &str, port: u16, case: &str, options: &[&str]) -> Result<Got> {
        let url = format!("http://10.77.0.2:8080/{case}");
        match self.curl(way, port).with(options).get(&url) {
            Ok(reply) => Ok(Got::Whole(reply.status, reply.body)),
            // Closed with a part outstanding; an error of HTTP/2's framing layer; the stream was reset.
            Err(error) => match error.downcast_ref() {
                Some(Failure::Closed | Failure::Other(18 | 16 | 92)) => Ok(Got::Broken),
                _ => Err(error.context(format!("{way} {case}"))),
            },
        }
    }
}

/// What each case of the script comes to, however its client speaks.
fn cases() -> Vec<(&'static str, Got)> {
    let (hello, none) = (|| whole(200, "hello"), || whole(200, ""));
    let (bad, closed) = (|| ours("bad-response"), || ours("upstream-closed"));
    vec![
        // Frames out of turn, and those that nobody may send.
        ("data-first", bad()),
        ("data-first-then-head", bad()),
        ("promise", closed()),
        ("idle-stream", closed()),
        ("even-stream", closed()),
        ("window-of-0", closed()),
        ("ended-twice", none()),
        // Heads that are none.
        ("no-status", bad()),
        ("two-statuses", bad()),
        ("late-status", bad()),
        ("odd-status", bad()),
        ("status-99", bad()),
        ("status-600", bad()),
        ("request-like", bad()),
        ("cr", bad()),
        ("lf", bad()),
        ("nul", bad()),
        ("blank", bad()),
        ("upper", bad()),
        ("colon", bad()),
        ("nameless", bad()),
        // Fields of a connection of HTTP/1.
        ("connection", bad()),
        ("keep-alive", bad()),
        ("transfer-encoding", bad()),
        ("upgrade", bad()),
        // Lengths.
        ("long", Got::Broken),
        ("short", Got::Broken),
        ("short-without-any", bad()),
        ("two-lengths", bad()),
        ("no-length", bad()),
        ("signed-length", bad()),
        ("none-204", whole(204, "")),
        ("none-304", whole(304, "")),
        // Interim heads, second ones, trailers.
        ("interim", hello()),
        ("interim-ended", bad()),
        ("switch", bad()),
        ("two-heads", Got::Broken),
        ("two-heads-ended", Got::Broken),
        ("trailer", hello()),
        ("pseudo-trailer", Got::Broken),
        ("trailer-of-connection", Got::Broken),
        // Ends.
        ("reset", closed()),
        ("reset-within", Got::Broken),
        ("reset-at-the-end", hello()),
        ("close", closed()),
        ("close-within", Got::Broken),
        // Too much.
        ("block", closed()),
        ("bomb", bad()),
        ("interim-for-ever", bad()),
        ("settings", closed()),
        ("pings", closed()),
        ("alive", hello()),
    ]
}

#[test]
fn what_a_backend_breaks_no_client_gets_for_an_answer() {
    let Some(python) = python() else { return };
    scene::run(|scene| {
        let site = Site::set(scene, &python)?;
        let (cases, mut wrong) = (cases(), Vec::new());
        for (case, expected) in &cases {
            for way in WAYS {
                let got = site.ask(way, PLAIN, case, &[])?;
                if got != *expected {
                    wrong.push(format!("{case} {way}: {expected:?} expected, {got:?}"));
                }
            }
        }
        ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), 2 * cases.len(), wrong.join("\n"));
        let broken = cases.iter().filter(|(_, got)| *got == Got::Broken).count();
        let counted = site.daemon.metrics()?.sum("lb_worker_closes_total", &["reason=\"truncated\""]);
        ensure!(counted == Some((2 * broken) as f64), "{counted:?} cut off, and not {}", 2 * broken);
        ensure!(site.ask(WAYS[1], PLAIN, "head", &["--head"])?.status() == 200);
        ensure!(site.ask(WAYS[1], PLAIN, "sound", &[])? == whole(200, "sound 1 0\n"));
        Ok(())
    });
}

#[test]
fn what_a_backend_has_not_looked_at_is_asked_again() {
    let Some(python) = python() else { return };
    scene::run(|scene| {
        let site = Site::set(scene, &python)?;
        // With HTTP/1.1, where head and body come in one piece: of what is sent as it comes nothing is kept.
        for (at, body) in [&[][..], &["-d", "x"]].into_iter().enumerate() {
            let length = body.len() / 2;
            for case in ["goaway", "refused"] {
                let path = format!("{case}/{at}");
                let got = site.ask(WAYS[0], PLAIN, &path, body)?;
                ensure!(got == whole(200, &format!("{path} 2 {length}\n")), "{path}: {got:?}");
            }
            // It is believed once; what is safe to repeat gets no more.
            let path = format!("refused-always/{at}");
            ensure!(site.ask(WAYS[0], PLAIN, &path, body)? == ours("upstream-closed"));
            let asked = site.ask(WAYS[0], PLAIN, &format!("asked/{path}"), &[])?;
            ensure!(asked == whole(200, "2"), "{path}: asked {asked:?}");
        }
        // A connection that says that it takes nothing more is left to those who are on it.
        thread::scope(|scope| {
            let first = scope.spawn(|| site.ask(WAYS[0], PLAIN, "part", &[]));
            wait::until_ok("its request", PATIENCE, || {
                ensure!(site.ask(WAYS[0], PLAIN, "asked/part", &[])? == whole(200, "1"));
                Ok(())
            })?;
            for at in 0..8 {
                let (path, way) = (format!("behind/{at}"), WAYS[at % 2]);
                let got = site.ask(way, PLAIN, &path, &["-d", "x"])?;
                ensure!(got == whole(200, &format!("{path} 1 1\n")), "{way}: {got:?}");
            }
            site.ask(WAYS[0], PLAIN, "end", &[])?;
            let first = first.join().unwrap_or_else(|_| bail!("who asked first has panicked"))?;
            ensure!(first == whole(200, "some more"), "{first:?}");
            Ok(())
        })
    });
}

#[test]
fn what_a_backend_grants_is_kept_to() {
    let Some(python) = python() else { return };
    const BODY: u64 = 200_000;
    scene::run(|scene| {
        let site = Site::set(scene, &python)?;
        let file = scene.directory().join("body");
        pattern::write_file(&file, BODY)?;
        let upload = ["-H", "Expect:", "-T", file.to_str().context("a path")?];
        // An answer before the end of the question, which is given up then (RFC 9113, 8.1).
        for (case, status) in [("early", 200), ("early-no", 413)] {
            let got = site.ask(WAYS[0], PLAIN, case, &upload)?;
            ensure!(got == whole(status, ""), "{case}: {got:?}");
        }
        for way in WAYS {
            let path = format!("window/{}", way.trim_start_matches('-'));
            let got = site.ask(way, WINDOW_OF_NOTHING, &path, &upload)?;
            ensure!(got == whole(200, &format!("{path} 1 {BODY}\n")), "{way}: {got:?}");
            for port in [ONE_AT_ONCE, NONE_THEN_ONE] {
                let ask = |at: usize| {
                    let path = format!("{port}/{at}/{}", way.trim_start_matches('-'));
                    let got = site.ask(way, port, &path, &[])?;
                    ensure!(got == whole(200, &format!("{path} 1 0\n")), "{path}: {got:?}");
                    Ok(())
                };
                thread::scope(|scope| {
                    let all: Vec<_> = (0..6).map(|at| scope.spawn(move || ask(at))).collect();
                    let join = |one: thread::ScopedJoinHandle<'_, Result<()>>| {
                        one.join().unwrap_or_else(|_| bail!("who asked has panicked"))
                    };
                    all.into_iter().try_for_each(join)
                })?;
            }
            // What is said first is waited for: a request that may not be sent is none that was.
            let got = site.ask(way, NONE_AT_ONCE, "/", &[])?;
            let late = whole(504, "504 Gateway Timeout: connect-timeout\n");
            ensure!(got == late, "{way}: {got:?}");
            let got = site.ask(way, OLD, "/", &[])?;
            ensure!(got == ours("connect-failed"), "{way}: {got:?}");
        }
        Ok(())
    });
}
