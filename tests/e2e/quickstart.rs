//! `lb run` and nothing else.

use std::collections::BTreeSet;

use anyhow::ensure;
use lb_tests::{curl::Curl, daemon::Daemon, scene, wait::PATIENCE};
use rustix::process::Signal;

#[test]
fn curl_twice_shows_two_backends() {
    scene::run(|scene| {
        let mut daemon = Daemon::quickstart(scene)?;
        let netns = &scene.topology().lb.netns;
        let get = || Curl::within(netns).get("http://127.0.0.1:8080/");
        let mut bodies = BTreeSet::new();
        for _ in 0..2 {
            let reply = get()?;
            ensure!(reply.status == 200, "{reply:?}");
            bodies.insert(reply.body);
        }
        ensure!(bodies.len() == 2, "{bodies:?}");
        let requests = daemon.metrics()?.sum("lb_listener_requests_total", &[]);
        ensure!(requests == Some(2.0), "{requests:?}");
        let said = daemon.process().log();
        ensure!(said.contains("http://127.0.0.1:8080"), "it prints nothing to try:\n{said}");
        daemon.process().signal(Signal::TERM)?;
        let status = daemon.process().wait_for_exit(PATIENCE)?;
        ensure!(status.code() == Some(0), "{status}");
        Ok(())
    });
}
