//! A backend that misbehaves is taken out by what clients meet, costs them a stated number of errors, and comes back.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::Daemon,
    nginx::Nginx,
    peer::raw_exchange,
    scene,
    topology::Host,
    wait::{self, PATIENCE},
};

const PORT: u16 = 5000;
const WORKERS: usize = 2;
/// Errors in a row that take a backend out.
const ERRORS: usize = 3;
/// What clients may meet for each ejection: of each worker a row, and one under way.
const BUDGET: usize = WORKERS * (ERRORS + 1);

const CONFIG: &str = r#"
[runtime]
workers = 2

[limits]
idle_timeout = "300ms"

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "web"

[listener.alone]
bind = ["10.77.0.2:8081"]
protocol = "http"
pool = "alone"

[pool.web]
backends = ["10.77.0.11:5000", "10.77.0.12:80"]
outlier = { consecutive_errors = 3, ejection = "1s", ejection_max = "2s" }

[pool.alone]
backends = ["10.77.0.11:5000", "10.77.0.12:5000"]
health = { tcp = "auto", every = "100ms", timeout = "100ms", fall = 1, rise = 1 }
panic = "50%"
"#;

const FINE: usize = 0;
const MOODS: [(usize, &str); 3] = [(1, "answers 500"), (2, "resets"), (3, "hangs")];

/// A server that answers by its mood, until dropped.
struct Moody {
    mood: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Moody {
    fn start(host: &Host) -> Result<Self> {
        let listener = host.netns.run(|| TcpListener::bind((host.v4, PORT)))??;
        listener.set_nonblocking(true)?;
        let (mood, stop) = (Arc::new(AtomicUsize::new(FINE)), Arc::new(AtomicBool::new(false)));
        let (its_mood, ends) = (mood.clone(), stop.clone());
        let accept = move || {
            while !ends.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let mood = its_mood.clone();
                thread::spawn(move || answer(stream, &mood));
            }
        };
        Ok(Self { mood, stop, thread: Some(thread::spawn(accept)) })
    }

    fn be(&self, mood: usize) {
        self.mood.store(mood, Ordering::Relaxed);
    }
}

impl Drop for Moody {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn answer(mut stream: TcpStream, mood: &AtomicUsize) {
    if stream.set_nonblocking(false).is_err() || stream.set_read_timeout(Some(PATIENCE)).is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|len| len > 0) {
        let status = match mood.load(Ordering::Relaxed) {
            FINE => "200 OK",
            1 => "500 No",
            2 => return,
            _ => {
                thread::sleep(Duration::from_secs(1));
                return;
            }
        };
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nX-Backend: b1\r\n\r\n");
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn who_misbehaves_is_taken_out_and_comes_back() {
    scene::run(|scene| {
        let topology = scene.topology();
        let (b1, b2, client) = (&topology.b1, &topology.b2, &topology.client.netns);
        let moody = Moody::start(b1)?;
        let _nginx = Nginx::start(scene, b2)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let get = || -> Result<String> {
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            let answer = raw_exchange(client, topology.lb.v4.into(), 8080, request)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let row = || -> Result<(String, Option<String>)> {
            let shown = daemon.show("backends")?;
            let rows = shown.matching("pool", "web");
            let row = rows.first().context("no pool web")?;
            Ok((row.text("state")?.to_owned(), row.text("reason").ok().map(str::to_owned)))
        };
        let is_used = || -> Result<()> {
            for _ in 0..4 {
                if get()?.contains("X-Backend: b1") {
                    return Ok(());
                }
            }
            anyhow::bail!("no request goes to b1")
        };
        wait::until_ok("b1 is used", PATIENCE, is_used)?;
        for (number, name) in MOODS {
            moody.be(number);
            let mut errors = 0;
            wait::until_ok("the ejection", PATIENCE, || {
                errors += usize::from(!get()?.starts_with("HTTP/1.1 200 "));
                let (state, reason) = row()?;
                ensure!(state == "ejected", "{name}: {state}");
                let is_said = |reason: &String| reason.ends_with(" errors in a row");
                ensure!(reason.as_ref().is_some_and(is_said), "{name}: {reason:?}");
                Ok(())
            })?;
            ensure!((ERRORS..=BUDGET).contains(&errors), "{name}: clients met {errors} errors");
            moody.be(FINE);
            for _ in 0..20 {
                ensure!(get()?.starts_with("HTTP/1.1 200 "), "{name}: an error after the ejection");
            }
            wait::until_ok("the return", PATIENCE, || {
                ensure!(row()?.0 == "up");
                is_used()
            })?;
        }
        let of_b1 = ["backend=\"10.77.0.11:5000\"", "pool=\"web\"", "reason=\"consecutive-errors\""];
        let counted = daemon.metrics()?.sum("lb_health_ejections_total", &of_b1);
        ensure!(counted == Some(3.0), "{counted:?}");
        Ok(())
    });
}

#[test]
fn where_nobody_is_of_use_all_are_used() {
    scene::run(|scene| {
        let topology = scene.topology();
        let daemon = Daemon::start(scene, CONFIG)?;
        let panics = || daemon.metrics().map(|m| m.sum("lb_health_in_panic", &["pool=\"alone\""]));
        wait::until_ok("the panic", PATIENCE, || {
            ensure!(panics()? == Some(1.0));
            Ok(())
        })?;
        let status = daemon.verb(&["status"])?.success()?;
        ensure!(status.contains("pool alone: all backends are used"), "{status}");
        let shown = daemon.show("backends")?;
        let rows = shown.matching("pool", "alone");
        ensure!(rows.iter().all(|row| row.text("state").is_ok_and(|state| state == "down")), "{shown:?}");
        let _moody = Moody::start(&topology.b1)?;
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        wait::until_ok("an answer", PATIENCE, || {
            let answer = raw_exchange(&topology.client.netns, topology.lb.v4.into(), 8081, request)?;
            ensure!(answer.starts_with(b"HTTP/1.1 200 "));
            Ok(())
        })?;
        // One of two is not less than half.
        wait::until_ok("its end", PATIENCE, || {
            ensure!(panics()? == Some(0.0));
            Ok(())
        })
    });
}
