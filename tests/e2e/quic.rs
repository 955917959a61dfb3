//! QUIC VIPs: datagrams with an id go to the server that it names, wherever they come from.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::{self, Daemon},
    netns::Namespace,
    scene::{self, Scene},
    topology::VIPS,
    udp::UdpEcho,
    wait::{self, PATIENCE},
};

const KEY: &str = "000102030405060708090a0b0c0d0e0f";
const ANOTHER_KEY: &str = "ffeeddccbbaa99887766554433221100";
/// Source ports per server: that so many go to one by hash is one chance in a million.
const PORTS: usize = 20;
/// Types of long headers, version 1.
const INITIAL: u8 = 0;
const HANDSHAKE: u8 = 2;

#[test]
fn an_id_leads_to_its_server_and_an_initial_goes_by_hash() {
    scene::run(|scene| {
        let topology = scene.topology();
        let [b1, b2] = topology.backends();
        let _echo = [UdpEcho::start(b1, &VIPS, 443)?, UdpEcho::start(b2, &VIPS, 443)?];
        let daemon = Daemon::start(scene, &config(scene)?)?;
        for vip in VIPS {
            led(scene, &daemon, vip).with_context(|| format!("datagrams to {vip}"))?;
        }
        Ok(())
    });
}

fn config(scene: &Scene) -> Result<String> {
    fs::write(scene.directory().join("quic-0.key"), KEY)?;
    fs::write(scene.directory().join("another.key"), ANOTHER_KEY)?;
    let [b1, b2] = scene.topology().backends().map(|host| host.v4);
    let [v4, v6] = VIPS;
    Ok(format!(
        r#"
[xdp]
interfaces = ["eth0"]

[vip.web]
address = ["{v4}", "{v6}"]
ports = ["443/udp"]
forward = "l2dsr"
pool = "web"
quic = {{ keys = {{ 0 = "file:quic-0.key" }} }}

[pool.web]
backends = [{{ address = "{b1}", server_id = 1 }}, {{ address = "{b2}", server_id = 2 }}]
"#
    ))
}

fn led(scene: &Scene, daemon: &Daemon<'_>, vip: IpAddr) -> Result<()> {
    let client = &scene.topology().client.netns;
    let asked = |datagram: Vec<u8>| ask(client, vip, &datagram);
    let counted = |reason: &str| -> Result<f64> {
        let metrics = daemon.metrics()?;
        let sum = metrics.sum("lb_xdp_quic_datagrams_total", &[&format!("reason=\"{reason}\"")]);
        sum.with_context(|| format!("no {reason}"))
    };
    // Ethernet addresses of both are known once both have answered.
    let mut seen = BTreeSet::new();
    wait::until_ok("answers of both backends", PATIENCE, || {
        seen.insert(asked(long(INITIAL, b"a client's own"))?);
        ensure!(seen.len() == 2, "only {seen:?}");
        Ok(())
    })?;

    let before = counted("by-id")?;
    for (server, name) in [(1, "b1"), (2, "b2")] {
        for _ in 0..PORTS {
            let id = made(scene, "quic-0.key", server)?;
            for datagram in [short(&id), long(HANDSHAKE, &id)] {
                let answer = asked(datagram)?;
                ensure!(answer == name, "server {server} is {name}, and {answer} answered");
            }
        }
        moved(client, vip, &short(&made(scene, "quic-0.key", server)?), name)?;
    }
    let by_id = counted("by-id")? - before;
    ensure!(by_id == (2 * (2 * PORTS + 3)) as f64, "{by_id} by id");

    let id = made(scene, "quic-0.key", 1)?;
    let opening = counted("opening")?;
    by_hash("Initials", || asked(long(INITIAL, &id)))?;
    ensure!(counted("opening")? - opening == (2 * PORTS) as f64, "Initials are counted as such");
    let stranger = made(scene, "another.key", 1)?;
    let invalid = counted("invalid-id")?;
    by_hash("ids under another key", || asked(short(&stranger)))?;
    ensure!(counted("invalid-id")? - invalid == (2 * PORTS) as f64, "they are counted as such");
    let unknown = counted("unknown-server")?;
    let nobody = made(scene, "quic-0.key", 3)?;
    by_hash("ids of nobody", || asked(short(&nobody)))?;
    ensure!(counted("unknown-server")? - unknown == (2 * PORTS) as f64, "they are counted as such");
    Ok(())
}

/// A client whose address changes: one connection, three sockets.
fn moved(client: &Namespace, vip: IpAddr, datagram: &[u8], name: &str) -> Result<()> {
    for _ in 0..3 {
        let answer = ask(client, vip, datagram)?;
        ensure!(answer == name, "it was {name}'s connection, and {answer} answered");
    }
    Ok(())
}

/// Twice [`PORTS`] flows find both backends.
fn by_hash(what: &str, ask: impl Fn() -> Result<String>) -> Result<()> {
    let names: Result<BTreeSet<String>> = (0..2 * PORTS).map(|_| ask()).collect();
    let names = names.context(what.to_owned())?;
    ensure!(names.len() == 2, "{what}: only {names:?}");
    Ok(())
}

/// An id that `lb quic-id` makes, with a nonce of its own.
fn made(scene: &Scene, key: &str, server: u16) -> Result<Vec<u8>> {
    let (key, server) = (scene.directory().join(key).display().to_string(), server.to_string());
    let text =
        daemon::verb(&scene.topology().b1, &["quic-id", "--key", &key, "--server", &server])?.success()?;
    let digits = text.trim();
    let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..digits.len()).step_by(2).map(|at| byte(at).with_context(|| format!("no id: {text}"))).collect()
}

fn short(id: &[u8]) -> Vec<u8> {
    [&[0x40], id, b"encrypted, as far as anybody can see"].concat()
}

/// A long header, version 1.
fn long(kind: u8, id: &[u8]) -> Vec<u8> {
    [&[0xc0 | kind << 4, 0, 0, 0, 1, id.len() as u8], id, &[0], b"and so on"].concat()
}

/// Asks from a port of its own; gives the name of who answered.
fn ask(client: &Namespace, vip: IpAddr, datagram: &[u8]) -> Result<String> {
    let any: SocketAddr = if vip.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = client.run(|| UdpSocket::bind(any))??;
    socket.connect((vip, 443))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send(datagram)?;
    let mut buffer = [0; 256];
    let size = socket.recv(&mut buffer).context("no answer")?;
    let at = buffer[..size].iter().position(|byte| *byte == b' ').context("an answer without a name")?;
    ensure!(buffer[at + 1..size] == *datagram, "the datagram came back changed");
    Ok(String::from_utf8_lossy(&buffer[..at]).into_owned())
}
