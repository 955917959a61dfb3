//! A backend that misbehaves is taken out by what clients meet, costs them a stated number of errors, and comes back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::Daemon,
    moody::{Mood, Moody},
    nginx::Nginx,
    peer::raw_exchange,
    scene,
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

const MOODS: [Mood; 3] = [Mood::Errs, Mood::Resets, Mood::Hangs];

#[test]
fn who_misbehaves_is_taken_out_and_comes_back() {
    scene::run(|scene| {
        let topology = scene.topology();
        let (b1, b2, client) = (&topology.b1, &topology.b2, &topology.client.netns);
        let moody = Moody::start(b1, PORT)?;
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
        for mood in MOODS {
            moody.be(mood);
            let mut errors = 0;
            wait::until_ok("the ejection", PATIENCE, || {
                errors += usize::from(!get()?.starts_with("HTTP/1.1 200 "));
                let (state, reason) = row()?;
                ensure!(state == "ejected", "{mood:?}: {state}");
                let is_said = |reason: &String| reason.ends_with(" errors in a row");
                ensure!(reason.as_ref().is_some_and(is_said), "{mood:?}: {reason:?}");
                Ok(())
            })?;
            ensure!((ERRORS..=BUDGET).contains(&errors), "{mood:?}: clients met {errors} errors");
            moody.be(Mood::Fine);
            for _ in 0..20 {
                ensure!(get()?.starts_with("HTTP/1.1 200 "), "{mood:?}: an error after the ejection");
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

/// So long that an upgrade fits into it even where everything is slow.
const LONG: Duration = Duration::from_secs(10);

/// By one process; the next one knows it from its first request on, and for how long.
#[test]
fn who_is_out_stays_out_over_an_upgrade_until_its_time_is_over() {
    scene::run(|scene| {
        let topology = scene.topology();
        let (b1, b2, client) = (&topology.b1, &topology.b2, &topology.client.netns);
        let moody = Moody::start(b1, PORT)?;
        let _nginx = Nginx::start(scene, b2)?;
        let long = format!("ejection = \"{}s\", ejection_max = \"60s\"", LONG.as_secs());
        let config = CONFIG.replace("ejection = \"1s\", ejection_max = \"2s\"", &long);
        let mut daemon = Daemon::start(scene, &config)?;
        let of_b1 = || -> Result<bool> {
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            let answer = raw_exchange(client, topology.lb.v4.into(), 8080, request)?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            Ok(!answer.starts_with("HTTP/1.1 200 ") || answer.contains("X-Backend: b1"))
        };
        let row = |daemon: &Daemon<'_>| -> Result<(String, Option<String>)> {
            let shown = daemon.show("backends")?;
            let rows = shown.matching("pool", "web");
            let row = rows.first().context("no pool web")?;
            Ok((row.text("state")?.to_owned(), row.text("reason").ok().map(str::to_owned)))
        };
        moody.be(Mood::Errs);
        // It begins after this.
        let mut begun = Instant::now();
        let before = wait::until_ok("the ejection", PATIENCE, || {
            let row = row(&daemon)?;
            if row.0 != "ejected" {
                begun = Instant::now();
                of_b1()?;
            }
            ensure!(row.0 == "ejected", "{row:?}");
            Ok(row)
        })?;
        moody.be(Mood::Fine);
        daemon.upgrade(None)?;
        let mut others = 0;
        while !of_b1()? {
            others += 1;
            ensure!(begun.elapsed() < PATIENCE, "it does not come back");
            if others == 1 && begun.elapsed() < LONG {
                let after = row(&daemon)?;
                ensure!(
                    after == before || begun.elapsed() >= LONG,
                    "{before:?}, after the upgrade {after:?}"
                );
            }
        }
        ensure!(others > 0 && begun.elapsed() >= LONG, "a request after {:?}", begun.elapsed());
        wait::until_ok("its state", PATIENCE, || {
            ensure!(row(&daemon)?.0 == "up");
            Ok(())
        })?;
        // What was before makes the next time longer.
        moody.be(Mood::Errs);
        wait::until_ok("another ejection", PATIENCE, || {
            of_b1()?;
            ensure!(row(&daemon)?.0 == "ejected");
            Ok(())
        })?;
        let log = std::fs::read_to_string(scene.log("lb"))?;
        let longer = format!("\"seconds\":{}.0", 2 * LONG.as_secs());
        ensure!(log.contains(&longer), "no ejection of twice the time");
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
        let _moody = Moody::start(&topology.b1, PORT)?;
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
