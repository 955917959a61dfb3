//! `lb capture`, read by somebody else's program: tshark.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::{
    daemon::{Daemon, Decap},
    process::{self, Process},
    requirement,
    scene::{self, Scene},
    topology::VIPS,
    udp::UdpEcho,
    wait::{self, PATIENCE},
};
use rustix::process::Signal;

const PORT: u16 = 7;
/// Ethernet, IPv4 and UDP header.
const HEADERS: &str = "42";
const SECRET: &str = "what people send is none of our business";

fn config(scene: &Scene) -> String {
    let topology = scene.topology();
    format!(
        r#"
[xdp]
interfaces = ["eth0"]

[vip.service]
address = ["{}", "{}"]
ports = ["{PORT}/udp"]
forward = "ipip"
pool = "service"

[pool.service]
balance = "maglev"
backends = ["{}", "{}"]
"#,
        VIPS[0], VIPS[1], topology.b1.v4, topology.b2.v4
    )
}

#[test]
fn packets_are_captured_with_what_became_of_them() {
    scene::run(|scene| {
        if !requirement::is_there("tshark", "tshark") {
            return Ok(());
        }
        let topology = scene.topology();
        let _echo = [UdpEcho::start(&topology.b1, &VIPS, PORT)?, UdpEcho::start(&topology.b2, &VIPS, PORT)?];
        let _decap = [Decap::start(scene, &topology.b1)?, Decap::start(scene, &topology.b2)?];
        let daemon = Daemon::start(scene, &config(scene))?;
        let client = Client::new(scene)?;
        wait::until_ok("first answer", PATIENCE, || client.ask(64))?;
        forwarded(scene, &daemon, &client)?;
        dropped(scene, &daemon, &client)?;
        at_a_time(scene, &daemon, &client)?;
        to_a_pipe(scene, &daemon, &client)?;
        bounded(scene, &daemon, &client)
    });
}

/// One flow to the IPv4 VIP.
struct Client {
    socket: UdpSocket,
    vip: SocketAddr,
}

impl Client {
    fn new(scene: &Scene) -> Result<Self> {
        let client = &scene.topology().client;
        let any = IpAddr::V4(client.v4);
        let socket = client.netns.run(|| UdpSocket::bind((any, 40_000)))??;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(Self { socket, vip: SocketAddr::new(VIPS[0], PORT) })
    }

    /// Asks, and has the answer: whatever watches, nothing may be lost.
    fn ask(&self, ttl: u32) -> Result<()> {
        self.send(ttl)?;
        let mut buffer = [0; 256];
        self.socket.recv(&mut buffer).context("no answer")?;
        Ok(())
    }

    fn send(&self, ttl: u32) -> Result<()> {
        self.socket.set_ttl(ttl)?;
        self.socket.send_to(SECRET.as_bytes(), self.vip)?;
        Ok(())
    }
}

/// A capture in the background, and its file.
struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    fn start(scene: &Scene, daemon: &Daemon<'_>, name: &str, wishes: &[&str]) -> Result<Self> {
        let file = scene.directory().join(format!("{name}.pcapng"));
        let path = file.display().to_string();
        let command = daemon.command(&[&["capture", "-w", &path][..], wishes].concat())?;
        let process = Process::spawn("lb capture", command, &scene.log(name))?;
        let mut this = Self { process, file };
        // The file is made once the daemon has agreed.
        let file = this.file.clone();
        this.process.wait_until("capture", PATIENCE, || {
            ensure!(file.exists(), "no file yet");
            Ok(())
        })?;
        Ok(this)
    }

    fn ended(mut self) -> Result<Captured> {
        let status = self.process.wait_for_exit(PATIENCE)?;
        ensure!(status.success(), "{status}: {}", self.process.log());
        Captured::read(&self.file, self.process.log())
    }
}

/// What tshark reads.
#[derive(Debug)]
struct Captured {
    packets: Vec<Vec<String>>,
    said: String,
}

const FIELDS: [&str; 8] = [
    "frame.comment",
    "frame.interface_name",
    "frame.len",
    "frame.cap_len",
    "frame.verdict.ebpf_xdp",
    "ip.dst",
    "udp.srcport",
    "frame.time_epoch",
];

impl Captured {
    fn read(file: &Path, said: String) -> Result<Self> {
        let mut command = Command::new("tshark");
        command.args(["-n", "-r"]).arg(file).args(["-T", "fields", "-E", "separator=|"]);
        FIELDS.iter().for_each(|field| _ = command.args(["-e", field]));
        let output = process::run(command, PATIENCE)?;
        ensure!(output.code == 0, "tshark: {output:?}");
        let packets = output.stdout.lines().map(|line| line.split('|').map(str::to_owned).collect());
        Ok(Self { packets: packets.collect(), said })
    }

    fn field(packet: &[String], name: &str) -> Result<String> {
        let at = FIELDS.iter().position(|field| *field == name);
        at.and_then(|at| packet.get(at)).cloned().with_context(|| format!("no {name} in {packet:?}"))
    }

    fn each(&self, mut check: impl FnMut(&dyn Fn(&str) -> Result<String>) -> Result<()>) -> Result<()> {
        for packet in &self.packets {
            check(&|name| Self::field(packet, name)).with_context(|| format!("{packet:?}"))?;
        }
        Ok(())
    }
}

fn forwarded(scene: &Scene, daemon: &Daemon<'_>, client: &Client) -> Result<()> {
    let vip_packets = || daemon.show("vips")?.row("vip", "service")?.number("packets");
    let before = vip_packets()?;
    let capture = Capture::start(scene, daemon, "forwarded", &["--vip", "service", "--count", "10"])?;
    (0..10).try_for_each(|_| client.ask(64))?;
    let captured = capture.ended()?;
    ensure!(vip_packets()? == before + 10, "a captured packet is counted as any other");
    ensure!(captured.packets.len() == 10, "{captured:?}");
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_secs_f64();
    captured.each(|field| {
        let comment = field("frame.comment")?;
        ensure!(
            comment.starts_with("forwarded by ipip; vip service; backend service/10.77.0.1"),
            "{comment}"
        );
        ensure!(comment.contains("slot settled"), "{comment}");
        ensure!(field("frame.len")? == (42 + SECRET.len()).to_string() && field("frame.cap_len")? == HEADERS);
        ensure!(field("frame.interface_name")? == "eth0" && field("frame.verdict.ebpf_xdp")? == "3");
        // As it came in, not as it left.
        ensure!(field("ip.dst")? == VIPS[0].to_string() && field("udp.srcport")? == "40000");
        let at: f64 = field("frame.time_epoch")?.parse()?;
        ensure!((at - now).abs() < 30.0, "{at}, and it is {now}");
        Ok(())
    })
}

fn dropped(scene: &Scene, daemon: &Daemon<'_>, client: &Client) -> Result<()> {
    let capture = Capture::start(scene, daemon, "dropped", &["--outcome", "dropped", "--count", "3"])?;
    for _ in 0..3 {
        client.ask(64)?;
        client.send(1)?;
    }
    let captured = capture.ended()?;
    ensure!(captured.packets.len() == 3, "{captured:?}");
    captured.each(|field| {
        let comment = field("frame.comment")?;
        let is_whole = comment.starts_with("dropped: ttl; vip service; backend service/10.77.0.1")
            && comment.ends_with("; slot settled");
        ensure!(is_whole && field("frame.verdict.ebpf_xdp")? == "1", "{comment}");
        Ok(())
    })?;
    // And by interface, in both places.
    let drops = daemon.show("drops")?;
    let row = drops.row("reason", "ttl")?;
    ensure!(row.number("count")? == 3 && row.json()["interfaces"]["eth0"] == 3, "{row:?}");
    let labels = ["interface=\"eth0\"", "reason=\"ttl\""];
    ensure!(daemon.metrics()?.sum("lb_xdp_dropped_packets_total", &labels) == Some(3.0));
    let text = daemon.verb(&["show", "drops"])?.success()?;
    let line = text.lines().find(|line| line.contains(" ttl ")).context("no line of ttl")?;
    ensure!(line.contains("eth0 3") && line.contains("hop limit ran out"), "{line}");
    Ok(())
}

/// One at a time; it ends with its duration, with a signal, and with its client.
fn at_a_time(scene: &Scene, daemon: &Daemon<'_>, client: &Client) -> Result<()> {
    let first = Capture::start(scene, daemon, "first", &["--protocol", "udp"])?;
    let second = daemon.verb(&["capture", "-w", "/dev/null"])?;
    ensure!(second.code == 1 && second.stderr.contains("running already"), "{second:?}");
    client.ask(64)?;
    client.ask(64)?;
    // What was sent is in the ring; it is read within a moment, and certainly within this one.
    let file = first.file.clone();
    wait::until_ok("two packets in the file", PATIENCE, || {
        ensure!(Captured::read(&file, String::new())?.packets.len() == 2, "not yet");
        Ok(())
    })?;
    first.process.signal(Signal::INT)?;
    let captured = first.ended()?;
    ensure!(captured.packets.len() == 2 && captured.said.contains("2 packets captured"), "{captured:?}");

    let timed = |name: &str| {
        wait::until_ok("the end of the capture before", PATIENCE, || {
            let capture = Capture::start(scene, daemon, name, &["--duration", "1", "--reason", "denied"]);
            capture.map_err(|error| error.context("refused"))
        })
    };
    let captured = timed("timed")?.ended()?;
    ensure!(captured.packets.is_empty() && captured.said.contains(" 0 wanted"), "{captured:?}");
    // Nothing comes that would be sent to it, so only its absence can end it.
    let mut killed = Capture::start(scene, daemon, "killed", &["--reason", "denied"])?;
    killed.process.kill();
    timed("after")?.ended()?;
    Ok(())
}

/// To standard output, and with the payload where that is asked for.
fn to_a_pipe(scene: &Scene, daemon: &Daemon<'_>, client: &Client) -> Result<()> {
    let file = scene.directory().join("pipe.pcapng");
    let output = std::fs::File::create(&file)?;
    let mut command =
        daemon.command(&["capture", "-w", "-", "--payload", "--source", "10.77.0.1/32", "--count", "1"])?;
    let mut child = command.stdout(output).stderr(std::process::Stdio::null()).spawn()?;
    let ended = wait::until_ok("its end", PATIENCE, || {
        client.ask(64)?;
        child.try_wait()?.context("it still runs")
    });
    if ended.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    ensure!(ended?.success() && status.success(), "{status}");
    let bytes = std::fs::read(&file)?;
    ensure!(bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "no payload");
    let captured = Captured::read(&file, String::new())?;
    ensure!(captured.packets.len() == 1, "{captured:?}");
    let wrong = daemon.verb(&["capture", "-w", "/dev/null", "--vip", "web"])?;
    ensure!(wrong.code == 1 && wrong.stderr.contains("no vip \"web\""), "{wrong:?}");
    Ok(())
}

/// What is beyond the bound is forwarded, not captured, and said.
fn bounded(scene: &Scene, daemon: &Daemon<'_>, client: &Client) -> Result<()> {
    let capture = Capture::start(scene, daemon, "bounded", &["--rate", "2500", "--duration", "2"])?;
    (0..200).try_for_each(|_| client.ask(64))?;
    let captured = capture.ended()?;
    // 335 bytes in a tick of 134 ms: one record of 282 bytes.
    ensure!((1..=20).contains(&captured.packets.len()), "{captured:?}");
    if !captured.said.contains("over the rate") {
        bail!("{}", captured.said);
    }
    Ok(())
}
