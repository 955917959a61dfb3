//! Health checks through TLS and of gRPC, of servers that are not ours, but for the one of gRPC.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    authority::{Authority, Identity},
    daemon::Daemon,
    grpc::{HealthServer, NOT_SERVING, SERVING},
    process::Process,
    requirement,
    scene::{self, Scene},
    topology::Host,
    wait::{self, PATIENCE},
};

/// A year that no certificate of a test lives to see end.
const FAR: i32 = 4000;

/// A pool for each check, of one backend on `b1`, and a listener that uses it. The servers may take longer than the usual
/// second where the machine is busy.
fn config(checks: &[(&str, &str, u16)]) -> String {
    let with_pool = |(at, (name, health, port)): (usize, &(&str, &str, u16))| {
        format!(
            "[listener.{name}]\nbind = [\"10.77.0.2:{}\"]\nprotocol = \"tcp\"\npool = \"{name}\"\n\
             [pool.{name}]\nbackends = [\"10.77.0.11:{port}\"]\n\
             health = {{ {health}, every = \"2s\", timeout = \"2s\", recheck = \"100ms\", fall = 2, rise = 2 }}\n",
            9000 + at
        )
    };
    checks.iter().enumerate().map(with_pool).collect()
}

/// Waits until a pool's backend has changed for this reason.
fn is(daemon: &Daemon<'_>, pool: &str, expected: &str) -> Result<()> {
    wait::until_ok(expected, PATIENCE, || {
        let shown = daemon.show("backends")?;
        let reason = shown.row("pool", pool)?.text("reason").map(str::to_owned);
        ensure!(reason.as_ref().is_ok_and(|reason| reason == expected), "{pool}: {reason:?}");
        Ok(())
    })
}

/// Waits until the pools' backends have been asked a few times, and none of it failed.
fn are_up(daemon: &Daemon<'_>, pools: &[&str]) -> Result<()> {
    for pool in pools {
        wait::until_ok("answers", PATIENCE, || {
            let metrics = daemon.metrics()?;
            let label = format!("pool=\"{pool}\"");
            let count = |code: &str| {
                metrics.sum("lb_health_checks_total", &[&label, &format!("code=\"{code}\"")]).unwrap_or(0.0)
            };
            ensure!(
                count("answered") >= 3.0,
                "{pool}: {:?}",
                daemon.show("backends")?.matching("pool", pool)
            );
            Ok(())
        })?;
        let shown = daemon.show("backends")?;
        let state = shown.row("pool", pool)?.text("state")?.to_owned();
        ensure!(state == "up", "{pool}: {state}");
    }
    Ok(())
}

/// openssl's own server, which answers with what lies in its directory.
fn openssl(scene: &Scene, host: &Host, port: u16, identity: &Identity, more: &[&str]) -> Result<Process> {
    let mut server = host.netns.command("openssl");
    server.args(["s_server", "-accept", &port.to_string(), "-WWW", "-quiet"]).args(more);
    server.arg("-key").arg(&identity.key).arg("-cert").arg(&identity.certificate);
    server.current_dir(scene.directory());
    Process::spawn("openssl", server, &scene.log(&format!("openssl-{port}")))
}

#[test]
fn openssl_is_asked_for_its_certificate_and_a_page() {
    if !requirement::is_there("openssl", "openssl") {
        return;
    }
    scene::run(|scene| {
        let (b1, directory) = (&scene.topology().b1, scene.directory());
        fs::write(directory.join("health"), "all fine\n")?;
        let (ours, _other) = (Authority::new(directory, "ours")?, Authority::new(directory, "other")?);
        let (good, old) = (ours.vouch("a.test", FAR)?, ours.vouch("a.test", 2001)?);
        let _new = openssl(scene, b1, 8443, &good, &["-tls1_3"])?;
        let _old = openssl(scene, b1, 8444, &old, &["-tls1_2"])?;
        let page = r#"https = "/health", body = "fine""#;
        let checked = |more: &str| format!("{page}, {more}");
        let good_page = checked(r#"host = "a.test", ca = "file:ours.pem""#);
        let other_name = checked(r#"host = "a.test", sni = "b.test", ca = "file:ours.pem""#);
        let other_issuer = checked(r#"host = "a.test", ca = "file:other.pem""#);
        let host_roots = checked(r#"host = "a.test", verify = true"#);
        let daemon = Daemon::start(
            scene,
            &config(&[
                ("hands", r#"tls = "auto""#, 8443),
                ("old-hands", r#"tls = "auto""#, 8444),
                ("named-hands", r#"tls = "auto", sni = "a.test", ca = "file:ours.pem""#, 8443),
                ("page", page, 8443),
                ("old-page", page, 8444),
                ("good-page", &good_page, 8443),
                ("other-text", r#"https = "/health", body = "on fire""#, 8443),
                ("other-name", &other_name, 8443),
                ("other-issuer", &other_issuer, 8443),
                ("host-roots", &host_roots, 8443),
                ("expired", &good_page, 8444),
                ("nobody", r#"tls = "auto""#, 8445),
            ]),
        )?;
        are_up(&daemon, &["hands", "old-hands", "named-hands", "page", "old-page", "good-page"])?;
        let page = "check https /health:";
        is(&daemon, "other-text", &format!("{page} the body is not as expected, 2 of 2"))?;
        is(&daemon, "other-name", &format!("{page} certificate: not for b.test, 2 of 2"))?;
        is(&daemon, "other-issuer", &format!("{page} certificate: of an unknown issuer, 2 of 2"))?;
        is(&daemon, "host-roots", &format!("{page} certificate: of an unknown issuer, 2 of 2"))?;
        is(&daemon, "expired", &format!("{page} certificate: expired, 2 of 2"))?;
        is(&daemon, "nobody", "check tls: connection refused, 2 of 2")?;
        a_file_that_changes_is_read_anew(scene, &daemon)
    });
}

/// Another authority in the same file is gone by without an apply; one without certificates is refused.
fn a_file_that_changes_is_read_anew(scene: &Scene, daemon: &Daemon<'_>) -> Result<()> {
    let file = |name: &str| scene.directory().join(name);
    let ours = fs::read(file("ours.pem"))?;
    fs::write(file("other.pem"), "nothing\n")?;
    let refused = daemon.verb(&["apply", Path::new(&file("lb.toml")).to_str().context("a path")?])?;
    ensure!(refused.code == 1, "{refused:?}");
    let expected = "pool.other-issuer.health.ca: other.pem: holds no certificate in PEM";
    ensure!(refused.stderr.contains(expected), "{refused:?}");
    fs::write(file("other.pem"), ours)?;
    is(daemon, "other-issuer", "check https /health: passed, 2 of 2")
}

/// Python's own server, which answers with the status that stands in a file.
#[test]
fn python_is_asked_for_its_status_through_tls() {
    if !requirement::is_there("python3", "python3") {
        return;
    }
    scene::run(|scene| {
        let (b1, directory) = (&scene.topology().b1, scene.directory());
        let identity = Authority::new(directory, "ours")?.vouch("a.test", FAR)?;
        let status = directory.join("status");
        // Whole at any moment: an answer that is none, for an empty file, would be a failure of another reason.
        let answer = |code: &str| -> Result<()> {
            let next = directory.join("status.new");
            fs::write(&next, code)?;
            Ok(fs::rename(&next, &status)?)
        };
        answer("204")?;
        let script = format!(
            "import http.server, ssl\n\
             class H(http.server.BaseHTTPRequestHandler):\n\
             \x20 protocol_version = 'HTTP/1.1'\n\
             \x20 def do_GET(self):\n\
             \x20   self.send_response(int(open({status:?}).read()))\n\
             \x20   self.send_header('Content-Length', '0')\n\
             \x20   self.end_headers()\n\
             c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
             c.load_cert_chain({:?}, {:?})\n\
             c.set_alpn_protocols(['http/1.1'])\n\
             s = http.server.ThreadingHTTPServer(('10.77.0.11', 8443), H)\n\
             s.socket = c.wrap_socket(s.socket, server_side=True)\n\
             s.serve_forever()\n",
            identity.certificate, identity.key
        );
        let mut python = b1.netns.command("python3");
        python.args(["-c", &script]);
        let server = Process::spawn("python3", python, &scene.log("python"))?;
        let check = r#"https = "/", host = "a.test", ca = "file:ours.pem""#;
        let daemon = Daemon::start(scene, &config(&[("web", check, 8443)]))?;
        are_up(&daemon, &["web"])?;
        answer("503")?;
        is(&daemon, "web", "check https /: 503, 2 of 2")?;
        answer("200")?;
        is(&daemon, "web", "check https /: passed, 2 of 2")?;
        // It answers nothing while it sleeps.
        server.signal(rustix::process::Signal::STOP)?;
        is(&daemon, "web", "check https /: no answer within 2s, 2 of 2")
    });
}

#[test]
fn services_of_grpc_say_whether_they_serve() {
    scene::run(|scene| {
        let (b1, directory) = (&scene.topology().b1, scene.directory());
        let identity = Authority::new(directory, "ours")?.vouch("a.test", FAR)?;
        let plain = HealthServer::start(b1, 50051, "orders", None)?;
        let secure = HealthServer::start(b1, 50052, "orders", Some(&identity))?;
        let named = r#"grpcs = "orders", host = "a.test", ca = "file:ours.pem""#;
        let daemon = Daemon::start(
            scene,
            &config(&[
                ("plain", r#"grpc = "orders""#, 50051),
                ("secure", r#"grpcs = "orders""#, 50052),
                ("named", named, 50052),
                ("ported", r#"grpc = "orders", port = 50051"#, 80),
                ("other", r#"grpc = "bills""#, 50051),
                ("mixed", r#"grpc = "orders""#, 50052),
            ]),
        )?;
        are_up(&daemon, &["plain", "secure", "named", "ported"])?;
        is(&daemon, "other", "check grpc bills: NOT_FOUND: unknown service, 2 of 2")?;
        let mixed = || Ok(daemon.show("backends")?.row("pool", "mixed")?.text("state")?.to_owned());
        wait::until_ok("the mixed one to be down", PATIENCE, || {
            let state: Result<String> = mixed();
            ensure!(state.as_ref().is_ok_and(|state| state == "down"), "{state:?}");
            Ok(())
        })?;
        for server in [&plain, &secure] {
            server.be(NOT_SERVING);
        }
        is(&daemon, "plain", "check grpc orders: NOT_SERVING, 2 of 2")?;
        is(&daemon, "named", "check grpcs orders: NOT_SERVING, 2 of 2")?;
        for server in [&plain, &secure] {
            server.be(SERVING);
        }
        is(&daemon, "plain", "check grpc orders: passed, 2 of 2")?;
        is(&daemon, "named", "check grpcs orders: passed, 2 of 2")?;
        ensure!(plain.asked() > 0 && secure.asked() > 0);
        drop(plain);
        is(&daemon, "ported", "check grpc orders: connection refused, 2 of 2")
    });
}
