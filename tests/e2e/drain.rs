//! SIGTERM: nothing new, what is under way ends well, packets go on.

use std::{fs, net::TcpStream, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::{Daemon, Decap, verb},
    nginx::Nginx,
    pattern,
    peer::connect,
    scene::{self, Scene},
    topology::{VIP_V4, VIPS},
    udp::{self, UdpEcho},
    wait::{self, PATIENCE},
};
use rustix::process::Signal;

/// At nginx's 1 MiB/s: three seconds.
const BODY: u64 = 3 << 20;

const CONFIG: &str = r#"
[xdp]
interfaces = ["eth0"]

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "web"

[vip.echo]
address = ["192.0.2.10"]
ports = ["7/udp"]
forward = "ipip"
pool = "echo"

[pool.web]
backends = ["10.77.0.11:80"]

[pool.echo]
backends = ["10.77.0.11"]
"#;

struct Stage<'a> {
    daemon: Daemon<'a>,
    nginx: Nginx,
    _echo: UdpEcho,
    _decap: Decap,
}

impl<'a> Stage<'a> {
    fn set(scene: &'a Scene) -> Result<Self> {
        let b1 = &scene.topology().b1;
        let nginx = Nginx::start(scene, b1)?;
        nginx.offer("body", BODY)?;
        let (echo, decap) = (UdpEcho::start(b1, &VIPS[..1], 7)?, Decap::start(scene, b1)?);
        let daemon = Daemon::start(scene, CONFIG)?;
        ask_until_answered(scene)?;
        Ok(Self { daemon, nginx, _echo: echo, _decap: decap })
    }
}

fn ask_until_answered(scene: &Scene) -> Result<()> {
    let ask = || udp::ask(&scene.topology().client.netns, VIP_V4.into(), 7, "still there?");
    wait::until_ok("answer through the VIP", PATIENCE, ask).map(drop)
}

fn open(daemon: &Daemon<'_>) -> Result<u64> {
    daemon.show("listeners")?.row("listener", "web")?.number("open")
}

#[test]
fn a_download_outlives_sigterm_and_xdp_outlives_the_daemon() {
    scene::run(|scene| {
        let topology = scene.topology();
        let client = &topology.client.netns;
        let mut stage = Stage::set(scene)?;
        let file = scene.directory().join("download");
        let target = url(topology.lb.v4.into(), 8080, "/slow/body");
        thread::scope(|scope| {
            let download = scope.spawn(|| Curl::within(client).download(&target, &file));
            wait::until_ok("download under way", PATIENCE, || {
                ensure!(open(&stage.daemon)? == 1);
                Ok(())
            })?;
            stage.daemon.process().signal(Signal::TERM)?;
            wait::until("refused connection", PATIENCE, || {
                connect(client, topology.lb.v4.into(), 8080).err().filter(is_refusal)
            })?;
            ensure!(!download.is_finished(), "the download ended before the listener: nothing is proven");
            ensure!(stage.daemon.process().status()?.is_none(), "the daemon left a client behind");
            let reply = download.join().map_err(|_| anyhow::anyhow!("the download panicked"))??;
            ensure!(reply.status == 200 && pattern::check_file(&file)? == BODY, "{reply:?}");
            let status = stage.daemon.process().wait_for_exit(PATIENCE)?;
            ensure!(status.code() == Some(0), "{status}");
            Ok(())
        })?;
        ensure!(topology.lb.has_xdp()?, "the program left with the daemon");
        for _ in 0..20 {
            udp::ask(client, VIP_V4.into(), 7, "after the end").context("with the daemon gone")?;
        }
        detach(scene)?;
        ensure!(udp::ask(client, VIP_V4.into(), 7, "detached").is_err(), "who forwards?");
        ensure!(stage.nginx.requests()?.iter().any(|line| line.contains("/slow/body")));
        Ok(())
    });
}

#[test]
fn a_second_sigterm_does_not_wait() {
    scene::run(|scene| {
        let topology = scene.topology();
        let mut stage = Stage::set(scene)?;
        // It has sent half a request, and would be waited for.
        let idle: TcpStream = connect(&topology.client.netns, topology.lb.v4.into(), 8080)?;
        std::io::Write::write_all(&mut &idle, b"GET /echo HTTP/1.1\r\n")?;
        wait::until_ok("connection", PATIENCE, || {
            ensure!(open(&stage.daemon)? == 1);
            Ok(())
        })?;
        stage.daemon.process().signal(Signal::TERM)?;
        wait::until("refused connection", PATIENCE, || {
            connect(&topology.client.netns, topology.lb.v4.into(), 8080).err().filter(is_refusal)
        })?;
        ensure!(stage.daemon.process().status()?.is_none(), "it did not wait at all");
        stage.daemon.process().signal(Signal::TERM)?;
        stage.daemon.process().wait_for_exit(Duration::from_secs(3))?;
        ask_until_answered(scene)?;
        detach(scene)
    });
}

fn is_refusal(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::ConnectionRefused)
}

/// `lb detach --all` takes program and pins.
fn detach(scene: &Scene) -> Result<()> {
    let bpf = scene.bpffs();
    ensure!(!pins(&bpf)?.is_empty(), "nothing was pinned: the wrong place is looked at");
    let path = scene.pin_directory().display().to_string();
    verb(&scene.topology().lb, &["detach", "--all", "--bpf-dir", &path])?.success()?;
    ensure!(pins(&bpf)?.is_empty(), "left: {:?}", pins(&bpf)?);
    ensure!(!scene.topology().lb.has_xdp()?, "the program still hangs there");
    Ok(())
}

/// Everything below a directory but the directories, and the kernel's own iterators.
fn pins(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(pins(&entry.path())?);
        } else if entry.path().extension().is_none_or(|e| e != "debug") {
            found.push(entry.path().display().to_string());
        }
    }
    Ok(found)
}
