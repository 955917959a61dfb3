//! Health checks of every kind, of real servers: who is taken out, why, and who comes back.

use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::{Daemon, Decap},
    nginx::Nginx,
    process::Process,
    requirement,
    scene::{self, Scene},
    topology::{Host, VIP_V4, VIPS},
    udp::UdpEcho,
    wait::{self, PATIENCE},
};
use rustix::process::Signal;

/// Soon, and with patience for a busy machine.
const SOON: &str = r#"every = "100ms", timeout = "100ms", fall = 2, rise = 2"#;

fn with_pool(backends: &str, health: &str) -> String {
    format!("[pool.checked]\nbackends = [{backends}]\nhealth = {{ {health}, {SOON} }}\n")
}

/// Waits until a backend is up or down; why it is.
fn reason(daemon: &Daemon<'_>, host: &Host, up: bool) -> Result<String> {
    daemon.wait_until_up(host.v4.into(), up, PATIENCE)?;
    let shown = daemon.show("backends")?;
    let is_of = |row: &&lb_tests::view::Row| {
        row.text("backend").is_ok_and(|name| name.starts_with(&host.v4.to_string()))
    };
    let row = shown.rows().iter().find(is_of).context("no such backend")?;
    row.number("since_seconds")?;
    Ok(row.text("reason")?.to_owned())
}

fn is(found: &str, expected: &str) -> Result<()> {
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    Ok(())
}

fn page(scene: &Scene, host: &Host) -> PathBuf {
    scene.directory().join(format!("nginx-{}/www/files/health", host.name))
}

#[test]
fn a_wrong_answer_over_http_takes_a_backend_out_until_it_is_right_again() {
    scene::run(|scene| {
        let topology = scene.topology();
        let (b1, b2) = (&topology.b1, &topology.b2);
        let _nginx = [Nginx::start(scene, b1)?, Nginx::start(scene, b2)?];
        for host in [b1, b2] {
            fs::write(page(scene, host), "all fine\n")?;
        }
        let listener =
            "[listener.web]\nbind = [\"10.77.0.2:8080\"]\nprotocol = \"http\"\npool = \"checked\"\n";
        let health = r#"http = "/files/health", status = "200", body = "fine", host = "a.example""#;
        let pool = with_pool("\"10.77.0.11:80\", \"10.77.0.12:80\"", health);
        let daemon = Daemon::start(scene, &format!("{listener}{pool}"))?;
        let target = url(topology.lb.v4.into(), 8080, "/");
        let names = || -> Result<Vec<String>> {
            (0..8)
                .map(|_| Ok(Curl::within(&topology.client.netns).get(&target)?.body.trim().to_owned()))
                .collect()
        };

        fs::remove_file(page(scene, b1))?;
        is(&reason(&daemon, b1, false)?, "check http /files/health: 404, 2 of 2")?;
        ensure!(names()?.iter().all(|name| name == "b2"), "requests go on to a backend that is down");
        fs::write(page(scene, b1), "all fine again\n")?;
        is(&reason(&daemon, b1, true)?, "check http /files/health: passed, 2 of 2")?;
        fs::write(page(scene, b1), "on fire\n")?;
        is(&reason(&daemon, b1, false)?, "check http /files/health: the body is not as expected, 2 of 2")?;
        let metrics = daemon.metrics()?;
        let of_b1 = ["backend=\"10.77.0.11:80\""];
        let changes = metrics.sum("lb_health_changes_total", &of_b1);
        ensure!(changes == Some(3.0), "{changes:?}");
        let wrong = ["backend=\"10.77.0.11:80\"", "kind=\"http\"", "code=\"wrong-answer\""];
        ensure!(metrics.sum("lb_health_checks_total", &wrong).is_some_and(|wrong| wrong >= 4.0));
        let status = daemon.verb(&["status"])?.success()?;
        ensure!(status.contains("the body is not as expected, 2 of 2"), "{status}");
        let logged = scene_log(scene)?;
        ensure!(logged.contains("check http /files/health: 404, 2 of 2"), "{logged}");
        // nginx saw whom it was asked for.
        ensure!(daemon.is_up(b2.v4.into())? == Some(true), "the other one");
        Ok(())
    });
}

fn scene_log(scene: &Scene) -> Result<String> {
    Ok(fs::read_to_string(scene.log("lb"))?)
}

#[test]
fn redis_is_up_whether_or_not_it_wants_a_password() {
    if !requirement::is_there("redis-server", "redis-server") {
        return;
    }
    scene::run(|scene| {
        let (b1, b2) = (&scene.topology().b1, &scene.topology().b2);
        let start = |host: &Host, more: &[&str]| {
            let mut command = host.netns.command("redis-server");
            command.args(["--bind", &host.v4.to_string(), "--port", "6379", "--save", "", "--dir"]);
            command.arg(scene.directory()).args(["--protected-mode", "no"]).args(more);
            Process::spawn("redis-server", command, &scene.log(&format!("redis-{}", host.name)))
        };
        let pool = with_pool("\"10.77.0.11:6379\", \"10.77.0.12:6379\"", r#"redis = "auto""#);
        let listener = "[listener.db]\nbind = [\"10.77.0.2:6379\"]\nprotocol = \"tcp\"\npool = \"checked\"\n";
        let daemon = Daemon::start(scene, &format!("{listener}{pool}"))?;
        is(&reason(&daemon, b1, false)?, "check redis: connection refused, 2 of 2")?;
        daemon.wait_until_up(b2.v4.into(), false, PATIENCE)?;
        let open = start(b1, &[])?;
        let _closed = start(b2, &["--requirepass", "secret"])?;
        is(&reason(&daemon, b1, true)?, "check redis: passed, 2 of 2")?;
        is(&reason(&daemon, b2, true)?, "check redis: passed, 2 of 2")?;
        // It answers nothing while it sleeps.
        open.signal(Signal::STOP)?;
        is(&reason(&daemon, b1, false)?, "check redis: no answer within 100ms, 2 of 2")?;
        open.signal(Signal::CONT)?;
        is(&reason(&daemon, b1, true)?, "check redis: passed, 2 of 2")
    });
}

#[test]
fn datagrams_ask_real_dns() {
    if !requirement::is_there("dnsmasq", "dnsmasq-base") {
        return;
    }
    scene::run(|scene| {
        let b1 = &scene.topology().b1;
        let start = |address: &str| {
            let mut command = b1.netns.command("dnsmasq");
            command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=root"]);
            command.args(["--pid-file", "--no-resolv", "--no-hosts", "--bind-interfaces", "--port=53"]);
            command.arg(format!("--listen-address={}", b1.v4)).arg(format!("--address=/who.test/{address}"));
            Process::spawn("dnsmasq", command, &scene.log(&format!("dnsmasq-{address}")))
        };
        // A query for who.test A with id 0x6c62, and the address of the answer.
        let send = "hex:6c62 0100 0001 0000 0000 0000 03 77686f 04 74657374 00 0001 0001";
        let health = format!(r#"udp = "auto", send = "{send}", expect = "hex:c0000201""#);
        let listener =
            "[listener.names]\nbind = [\"10.77.0.2:53\"]\nprotocol = \"udp\"\npool = \"checked\"\n";
        let pool = with_pool("\"10.77.0.11:53\"", &health);
        let daemon = Daemon::start(scene, &format!("{listener}{pool}"))?;
        is(&reason(&daemon, b1, false)?, "check udp: connection refused, 2 of 2")?;
        let server = start("192.0.2.1")?;
        is(&reason(&daemon, b1, true)?, "check udp: passed, 2 of 2")?;
        drop(server);
        let _other = start("192.0.2.2")?;
        wait::until_ok("the wrong answer", PATIENCE, || {
            let wrong = daemon.metrics()?.sum("lb_health_checks_total", &["code=\"wrong-answer\""]);
            ensure!(wrong.is_some_and(|wrong| wrong > 1.0), "{wrong:?}");
            Ok(())
        })?;
        daemon.wait_until_up(b1.v4.into(), false, PATIENCE)
    });
}

/// The backend's own address answers nothing: only what comes through the tunnel, to the VIP, does.
#[test]
fn checks_of_a_vip_go_the_way_of_its_traffic() {
    scene::run(|scene| {
        let b1 = &scene.topology().b1;
        let udp = UdpEcho::start(b1, &VIPS[..1], 7)?;
        let _nginx = Nginx::start(scene, b1)?;
        let vip = |name: &str, port: &str| {
            format!(
                "[vip.{name}]\naddress = [\"{VIP_V4}\"]\nports = [\"{port}\"]\nforward = \"ipip\"\npool = \"{name}\"\n"
            )
        };
        let pool = |name: &str, health: &str| with_pool("\"10.77.0.11\"", health).replace("checked", name);
        let config = [
            "[xdp]\ninterfaces = [\"eth0\"]\n".to_owned(),
            vip("echo", "7/udp"),
            vip("web", "80/tcp"),
            pool("echo", r#"udp = "7", send = "who", expect = "b1""#),
            pool("web", r#"http = "/", port = 80, body = "b1""#),
        ];
        let daemon = Daemon::start(scene, &config.concat())?;
        daemon.wait_until_up(b1.v4.into(), false, PATIENCE)?;
        let decap = Decap::start(scene, b1)?;
        daemon.wait_until_up(b1.v4.into(), true, PATIENCE)?;
        let shown = daemon.show("backends")?;
        is(shown.row("pool", "echo")?.text("reason")?, "check udp: passed, 2 of 2")?;
        is(shown.row("pool", "web")?.text("reason")?, "check http /: passed, 2 of 2")?;
        drop(decap);
        daemon.wait_until_up(b1.v4.into(), false, PATIENCE)?;
        let shown = daemon.show("backends")?;
        is(shown.row("pool", "echo")?.text("reason")?, "check udp: no answer within 100ms, 2 of 2")?;
        is(shown.row("pool", "web")?.text("reason")?, "check http /: no connection within 100ms, 2 of 2")?;
        ensure!(udp.answered() > 0 && IpAddr::from(b1.v4).is_ipv4());
        Ok(())
    });
}

#[test]
fn a_program_says_who_is_up() {
    scene::run(|scene| {
        let b1 = &scene.topology().b1;
        let (programs, flag) = (scene.directory().join("programs"), scene.directory().join("flag"));
        fs::create_dir_all(&programs)?;
        let (program, flag_path) = (programs.join("check.sh"), flag.display());
        let script = format!(
            "#!/bin/sh\n[ -e {flag_path} ] && exit 0\necho \"$LB_POOL/$LB_BACKEND at $LB_ADDRESS $LB_PORT\"\nexit 3\n"
        );
        fs::write(&program, script)?;
        for path in [&programs, &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        let health = r#"exec = "check.sh", port = 99"#;
        let pool = with_pool("\"10.77.0.11:80\"", health).replace("100ms", "1s");
        let listener =
            "[listener.web]\nbind = [\"10.77.0.2:8080\"]\nprotocol = \"http\"\npool = \"checked\"\n";
        let daemon =
            Daemon::start(scene, &format!("[health]\nprograms_dir = {programs:?}\n{listener}{pool}"))?;
        let expected = "check exec check.sh: exit 3: checked/10.77.0.11:80 at 10.77.0.11 99, 2 of 2";
        is(&reason(&daemon, b1, false)?, expected)?;
        fs::write(&flag, "")?;
        is(&reason(&daemon, b1, true)?, "check exec check.sh: passed, 2 of 2")
    });
}
