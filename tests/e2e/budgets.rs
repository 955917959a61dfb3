//! What a backend that fails may cost clients: a number of requests for each way to fail, under a load of requests that may
//! be sent again, by connections that are kept, over two workers.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::Daemon,
    load::{Load, Outcome},
    moody::{Mood, Moody},
    nginx::Nginx,
    scene::{self, Scene},
    wait::{self, PATIENCE},
};
use rustix::process::Signal;

/// Clients, each with one connection and one request at a time: so many are under way.
const CLIENTS: usize = 8;

/// A backend is killed, with retries on: what was under way there goes to another one, what comes finds nobody there and does
/// the same, until the check tells.
const KILLED: usize = 0;
/// A backend hangs, without retries: each client may have one request under way there, which is answered with 504. What a
/// client sends after that finds the check's verdict.
const HUNG: usize = CLIENTS;
/// A backend hangs and goes on accepting, and only that is checked: what was under way times out and takes it out, and each
/// client may have sent one more before that was looked at.
const HUNG_UNCHECKED: usize = 2 * CLIENTS;
/// A backend hangs, with retries on time-outs: clients wait, and are answered.
const HUNG_RETRIED: usize = 0;
/// A backend is slow: nobody fails by that.
const SLOWED: usize = 0;
/// A backend goes and comes again and again, or breaks connections off, with retries on.
const FLAPPING: usize = 0;

/// Requests between two events, so that there is something to be lost.
const SOME: usize = 200;
/// Times that a backend goes and comes.
const FLAPS: usize = 4;

/// Routes by what is sent again; pools by how their backends are looked at.
const CONFIG: &str = r#"
[runtime]
workers = 2

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"

[route.retried]
listener = "web"
path = "/retried"
pool = "checked"
retry = { on = ["connect", "reset"], attempts = 2, budget = "20%" }
rewrite = { path = "/" }

[route.patient]
listener = "web"
path = "/patient"
pool = "checked"
timeout = "2s"
retry = { on = ["connect", "reset", "timeout"], attempts = 2, budget = "20%" }
rewrite = { path = "/" }

[route.once]
listener = "web"
path = "/once"
pool = "checked"
timeout = "2s"
rewrite = { path = "/" }

[route.watched]
listener = "web"
path = "/watched"
pool = "watched"
timeout = "1s"
rewrite = { path = "/" }

[route.moody]
listener = "web"
path = "/moody"
pool = "moody"
retry = { on = ["connect", "reset"], attempts = 2, budget = "20%" }
rewrite = { path = "/" }

[pool.checked]
balance = "round-robin"
backends = ["10.77.0.11:80", "10.77.0.12:80"]
health = { http = "/", every = "200ms", recheck = "100ms", timeout = "200ms", fall = 2, rise = 2 }

[pool.watched]
balance = "round-robin"
backends = ["10.77.0.11:80", "10.77.0.12:80"]
health = { tcp = "auto", every = "200ms", timeout = "200ms" }
outlier = { consecutive_errors = 3 }

[pool.moody]
balance = "round-robin"
backends = ["10.77.0.11:5000", "10.77.0.12:80"]
outlier = { consecutive_errors = 5, latency = "3x", ejection = "1s", ejection_max = "2s" }
"#;

/// What a load came to.
struct Came(Vec<Outcome>);

impl Came {
    /// Those without a good answer.
    fn failed(&self) -> Vec<&Outcome> {
        self.0.iter().filter(|one| !matches!(one.answer, Ok((200, _)))).collect()
    }

    /// As budgeted, and of these statuses; none of it began behind `last`.
    fn keeps(&self, budget: usize, status: u16, last: usize) -> Result<()> {
        let failed = self.failed();
        let all = self.0.len();
        ensure!(
            failed.len() <= budget,
            "{} of {all} requests failed, {budget} may: {failed:?}",
            failed.len()
        );
        let other = failed.iter().find(|one| !matches!(one.answer, Ok((found, _)) if found == status));
        ensure!(other.is_none(), "not {status}: {other:?}");
        let late = failed.iter().find(|one| one.number >= last);
        ensure!(late.is_none(), "failed behind {last}: {late:?}");
        Ok(())
    }

    /// Answers of a backend to requests between two of them.
    fn of(&self, name: &str, from: usize, to: usize) -> usize {
        let is_of = |one: &&Outcome| {
            (from..to).contains(&one.number) && one.answer.as_ref().is_ok_and(|(_, body)| body == name)
        };
        self.0.iter().filter(is_of).count()
    }
}

struct Site<'a> {
    scene: &'a Scene,
    daemon: Daemon<'a>,
}

impl<'a> Site<'a> {
    fn start(scene: &'a Scene) -> Result<Self> {
        let daemon = Daemon::start(scene, CONFIG)?;
        Ok(Self { scene, daemon })
    }

    fn under_load<T>(&self, path: &str, story: impl FnOnce(&Load) -> Result<T>) -> Result<(T, Came)> {
        let topology = self.scene.topology();
        let address = SocketAddr::from((topology.lb.v4, 8080));
        let (told, outcomes) = Load::during(&topology.client.netns, address, path, CLIENTS, story)?;
        Ok((told, Came(outcomes)))
    }

    /// What a pool's first backend has in this column.
    fn first(&self, pool: &str, column: &str) -> Result<String> {
        let shown = self.daemon.show("backends")?;
        let rows = shown.matching("pool", pool);
        Ok(rows.first().context("no such pool")?.text(column)?.to_owned())
    }

    /// Waits until a pool's first backend is in this state.
    fn is(&self, pool: &str, state: &str) -> Result<()> {
        wait::until_ok(state, PATIENCE, || {
            let found = self.first(pool, "state")?;
            ensure!(found == state, "{pool}: {found}");
            Ok(())
        })
    }
}

#[test]
fn a_backend_that_is_killed_costs_nothing_where_requests_are_sent_again() {
    scene::run_alone(|scene| {
        let [b1, b2] = scene.topology().backends();
        let first = Nginx::start(scene, b1)?;
        let _second = Nginx::start(scene, b2)?;
        let site = Site::start(scene)?;
        let ((marks, _again), came) = site.under_load("/retried", |load| {
            let up = load.wait_for(SOME)?;
            drop(first);
            site.is("checked", "down")?;
            let down = load.wait_for(SOME)?;
            let again = Nginx::start(scene, b1)?;
            site.is("checked", "up")?;
            let back = load.wait_for(SOME)?;
            Ok(([up, down, back], again))
        })?;
        came.keeps(KILLED, 0, 0)?;
        let [up, down, back] = marks;
        ensure!(came.of("b1", up, down) > 0, "it was not in use");
        ensure!(came.of("b1", down, down + SOME) == 0, "it was in use while it was down");
        ensure!(came.of("b1", back, usize::MAX) > 0, "it is not in use again");
        Ok(())
    });
}

#[test]
fn a_backend_that_hangs_costs_what_was_under_way() {
    for (path, budget) in [("/once", HUNG), ("/patient", HUNG_RETRIED)] {
        scene::run_alone(|scene| {
            let [b1, b2] = scene.topology().backends();
            let (first, _second) = (Nginx::start(scene, b1)?, Nginx::start(scene, b2)?);
            let site = Site::start(scene)?;
            let (down, came) = site.under_load(path, |load| {
                load.wait_for(SOME)?;
                first.signal(Signal::STOP)?;
                site.is("checked", "down")?;
                let down = load.begun();
                load.wait_for(SOME)?;
                first.signal(Signal::CONT)?;
                site.is("checked", "up")?;
                load.wait_for(SOME)?;
                Ok(down)
            })?;
            came.keeps(budget, 504, down)?;
            ensure!(budget == 0 || !came.failed().is_empty(), "nothing was under way");
            Ok(())
        });
    }
}

#[test]
fn a_backend_that_hangs_and_accepts_is_taken_out_by_what_it_costs() {
    scene::run_alone(|scene| {
        let [b1, b2] = scene.topology().backends();
        let (first, _second) = (Nginx::start(scene, b1)?, Nginx::start(scene, b2)?);
        let site = Site::start(scene)?;
        let (out, came) = site.under_load("/watched", |load| {
            load.wait_for(SOME)?;
            first.signal(Signal::STOP)?;
            site.is("watched", "ejected")?;
            let out = load.begun();
            load.wait_for(SOME)?;
            Ok(out)
        })?;
        came.keeps(HUNG_UNCHECKED, 504, out)?;
        ensure!(!came.failed().is_empty(), "nothing was under way");
        first.signal(Signal::CONT)
    });
}

#[test]
fn a_backend_that_is_slow_costs_nothing_and_loses_its_share() {
    scene::run_alone(|scene| {
        let [b1, b2] = scene.topology().backends();
        let (moody, _second) = (Moody::start(b1, 5000)?, Nginx::start(scene, b2)?);
        let site = Site::start(scene)?;
        let (marks, came) = site.under_load("/moody", |load| {
            let fine = load.wait_for(SOME)?;
            let slow = load.begun();
            moody.be(Mood::Slow);
            site.is("moody", "ejected")?;
            let out = load.begun();
            let reason = site.first("moody", "reason")?;
            ensure!(reason.contains(" ms to an answer, the others "), "{reason}");
            moody.be(Mood::Fine);
            site.is("moody", "up")?;
            let back = load.wait_for(SOME)?;
            Ok([fine, slow, out, back])
        })?;
        came.keeps(SLOWED, 0, 0)?;
        let [fine, slow, out, back] = marks;
        ensure!(came.of("b1", fine, slow) > 0 && came.of("b1", slow, out) > 0, "it was not in use");
        ensure!(came.of("b1", out, out + CLIENTS) == 0, "it was in use while it was out");
        ensure!(came.of("b1", back, usize::MAX) > 0, "it is not in use again");
        Ok(())
    });
}

#[test]
fn a_backend_that_comes_and_goes_costs_nothing_where_requests_are_sent_again() {
    scene::run_alone(|scene| {
        let [b1, b2] = scene.topology().backends();
        let _second = Nginx::start(scene, b2)?;
        let mut first = vec![Nginx::start(scene, b1)?];
        let site = Site::start(scene)?;
        let (_, came) = site.under_load("/retried", |load| {
            for _ in 0..FLAPS {
                load.wait_for(SOME)?;
                first.clear();
                load.wait_for(SOME)?;
                first.push(Nginx::start(scene, b1)?);
                site.is("checked", "up")?;
            }
            Ok(())
        })?;
        came.keeps(FLAPPING, 0, 0)?;
        ensure!(came.of("b1", 0, usize::MAX) > 0, "it was not in use");

        let moody = Moody::start(b1, 5000)?;
        let (_, came) = site.under_load("/moody", |load| {
            for _ in 0..FLAPS {
                site.is("moody", "up")?;
                load.wait_for(SOME)?;
                moody.be(Mood::Resets);
                load.wait_for(SOME)?;
                moody.be(Mood::Fine);
            }
            Ok(())
        })?;
        came.keeps(FLAPPING, 0, 0)?;
        ensure!(came.of("b1", 0, usize::MAX) > 0, "it was not in use");
        Ok(())
    });
}
