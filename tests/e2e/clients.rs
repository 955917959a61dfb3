//! Real clients of what an HTTP listener carries for long: WebSocket, streams of events, and those that are slow on purpose.

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    net::TcpListener,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::Daemon,
    nginx::Nginx,
    peer::{Service, TcpServer},
    process::{self, Process},
    requirement,
    scene::{self, Scene},
    wait::{self, PATIENCE},
};
use serde_json::Value;

const CONFIG: &str = r#"
[log]
access = "json"
file = "LOG"

[limits]
head_timeout = "3s"
idle_timeout = "4s"

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "nginx"

[listener.chat]
bind = ["10.77.0.2:8081"]
protocol = "http"
pool = "chat"

[listener.silent]
bind = ["10.77.0.2:8082"]
protocol = "http"
pool = "silent"

[pool.silent]
backends = ["10.77.0.11:4000"]

[pool.nginx]
backends = ["10.77.0.11:80"]

[pool.chat]
backends = ["10.77.0.11:9090"]
"#;

fn start(scene: &Scene) -> Result<Daemon<'_>> {
    Daemon::start(scene, &CONFIG.replace("LOG", &scene.log("access").display().to_string()))
}

/// Echoes messages, and says how many there were when asked to end.
const CHAT_SERVER: &str = r#"
import asyncio, websockets

async def serve(socket, path):
    count = 0
    async for message in socket:
        if message == "end":
            await socket.close(1000, str(count))
            return
        count += 1
        await socket.send(message)

async def main():
    async with websockets.serve(serve, "10.77.0.11", 9090, max_size=None, compression=None):
        await asyncio.Future()

asyncio.run(main())
"#;

/// Small and large messages, text and bytes, pings, many in flight; then the end that the server has to say.
const CHAT_CLIENT: &str = r#"
import asyncio, os, websockets

async def main():
    async with websockets.connect("ws://10.77.0.2:8081/chat?room=1", max_size=None, compression=None) as socket:
        for length in [0, 1, 125, 126, 65535, 65536, 4 << 20]:
            for message in ["x" * length, os.urandom(length)]:
                await socket.send(message)
                assert await socket.recv() == message, length
        await (await socket.ping())
        sent = [str(number) for number in range(1000)]
        async def send():
            for message in sent:
                await socket.send(message)
        task = asyncio.create_task(send())
        assert [await socket.recv() for _ in sent] == sent
        await task
        await socket.send("end")
        await socket.wait_closed()
        print(socket.close_code, socket.close_reason)

asyncio.run(main())
"#;

fn python(scene: &Scene, name: &str, script: &str, mut command: Command) -> Result<Command> {
    let file = scene.directory().join(name);
    fs::write(&file, script)?;
    command.arg(file);
    Ok(command)
}

#[test]
fn a_websocket_carries_messages_both_ways_to_its_close() {
    if !requirement::is_file_there(
        "/usr/lib/python3/dist-packages/websockets/__init__.py",
        "python3-websockets",
    ) {
        return;
    }
    scene::run(|scene| {
        let topology = scene.topology();
        let daemon = start(scene)?;
        // Debian's own, which has Debian's packages.
        let server = python(scene, "server.py", CHAT_SERVER, topology.b1.netns.command("/usr/bin/python3"))?;
        let _server = Process::spawn("chat", server, &scene.log("chat"))?;
        let client =
            || python(scene, "client.py", CHAT_CLIENT, topology.client.netns.command("/usr/bin/python3"));
        let said = wait::until_ok("chat", PATIENCE, || process::run(client()?, PATIENCE)?.success())?;
        ensure!(said.trim() == "1000 1014", "{said}");
        let metrics = daemon.metrics()?;
        let of = |name: &str| metrics.sum(name, &["listener=\"chat\""]);
        ensure!(of("lb_listener_upgrades_total") == Some(1.0), "{:?}", of("lb_listener_upgrades_total"));
        ensure!(of("lb_listener_open_tunnels") == Some(0.0));
        ensure!(
            metrics.sum("lb_worker_spliced_bytes_total", &[]) > Some(1e6),
            "the large ones leave user space"
        );
        let line = wait::until("record", PATIENCE, || {
            let log = fs::read_to_string(scene.log("access")).ok()?;
            log.lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["status"] == 101)
        })?;
        ensure!(
            line["upgrade"] == "websocket" && line["path"] == "/chat" && line["reason"].is_null(),
            "{line}"
        );
        for (way, whole) in [
            ("received_bytes", "lb_listener_received_bytes_total"),
            ("sent_bytes", "lb_listener_sent_bytes_total"),
        ] {
            let bytes = line[way].as_f64().context("no number")?;
            ensure!(bytes > 8e6 && Some(bytes) <= of(whole), "{way}: {bytes} of {:?}", of(whole));
        }
        Ok(())
    });
}

/// How many events, and how long the server is silent after each. `LB_SSE_SECONDS=600`: for so long, with silences that
/// come near `idle_timeout`.
fn events() -> Result<(u64, Duration)> {
    let Ok(seconds) = std::env::var("LB_SSE_SECONDS") else { return Ok((50, Duration::ZERO)) };
    let seconds: u64 = seconds.parse().context("LB_SSE_SECONDS")?;
    Ok((seconds / 3, Duration::from_secs(3)))
}

/// The next event is made only when curl has shown the last one: whoever waits for more shows none.
#[test]
fn events_reach_curl_one_by_one() {
    scene::run(|scene| {
        let (count, silence) = events()?;
        let topology = scene.topology();
        let _daemon = start(scene)?;
        let listener = topology.b1.netns.run(|| TcpListener::bind((topology.b1.v4, 9090)))??;
        let (shown, next) = mpsc::channel::<()>();
        let server = thread::spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut line = String::new();
            while reader.read_line(&mut line)? > 2 {
                line.clear();
            }
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            for number in 0..count {
                let event = format!("id: {number}\ndata: event {number}\n\n");
                stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
                next.recv_timeout(PATIENCE)?;
                thread::sleep(silence);
            }
            Ok(stream.write_all(b"0\r\n\r\n")?)
        });
        let mut curl = topology.client.netns.command("curl");
        curl.args(["-sSN", "-H", "Accept: text/event-stream", &url(topology.lb.v4.into(), 8081, "/events")]);
        let mut curl = curl.stdout(Stdio::piped()).spawn()?;
        let mut seen = Vec::new();
        for line in BufReader::new(curl.stdout.take().context("no output")?).lines() {
            let line = line?;
            if let Some(event) = line.strip_prefix("data: ") {
                seen.push(event.to_owned());
                shown.send(()).ok();
            }
        }
        let expected: Vec<_> = (0..count).map(|number| format!("event {number}")).collect();
        ensure!(curl.wait()?.success() && seen == expected, "{seen:?}");
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    });
}

/// Slow heads, slow bodies, slow readers: others are served meanwhile, and memory does not follow their number.
#[test]
fn slow_clients_cost_others_nothing() {
    if !requirement::is_there("slowhttptest", "slowhttptest") {
        return;
    }
    scene::run_alone(|scene| {
        let topology = scene.topology();
        let nginx = Nginx::start(scene, &topology.b1)?;
        nginx.offer("large", 8 << 20)?;
        let mut daemon = start(scene)?;
        let pid = daemon.process().pid();
        let _silent = TcpServer::start(&topology.b1, 4000, Service::Silent)?;
        let large = url(topology.lb.v4.into(), 8080, "/files/large");
        let silent = url(topology.lb.v4.into(), 8082, "/");
        let modes: [&[&str]; 3] = [
            &["-H", "-i", "1", "-u", &large],
            &["-B", "-i", "1", "-s", "8192", "-u", &silent],
            &["-X", "-w", "16", "-y", "32", "-n", "1", "-z", "8", "-k", "3", "-u", &large],
        ];
        let rest = memory(pid)?;
        for mode in modes {
            let mut slow = topology.client.netns.command("slowhttptest");
            slow.current_dir(scene.directory())
                .args(mode)
                .args(["-c", "400", "-r", "200", "-l", "8", "-p", "3"]);
            let mut slow = Process::spawn("slow", slow, &scene.log("slow"))?;
            let mut served = 0;
            wait::until_ok("slow clients", PATIENCE, || {
                ensure!(open(&daemon)? >= 300.0, "too few yet: {:?}", slow.log());
                Ok(())
            })
            .with_context(|| format!("{mode:?}"))?;
            let full = memory(pid)?;
            while slow.status()?.is_none() {
                let reply = Curl::within(&topology.client.netns).with(&["--max-time", "5"]).get(&url(
                    topology.lb.v4.into(),
                    8080,
                    "/echo",
                ))?;
                ensure!(reply.status == 200, "{mode:?}: {reply:?}");
                served += 1;
                thread::sleep(Duration::from_millis(100));
            }
            ensure!(served > 10, "{mode:?}: {served} served");
            // 64 KiB each would be 25 MiB.
            ensure!(full - rest < 24 << 20, "{mode:?}: {rest} bytes at rest, {full} with 400 of them");
        }
        wait::until_ok("an end of them", PATIENCE, || {
            ensure!(open(&daemon)? < 10.0);
            Ok(())
        })?;
        let after = memory(pid)?;
        ensure!(after - rest < 16 << 20, "{rest} bytes before, {after} after");
        let metrics = daemon.metrics()?;
        let heads = metrics.sum("lb_worker_closes_total", &["reason=\"head-timeout\""]);
        let bodies = metrics.sum("lb_worker_closes_total", &["reason=\"body-timeout\""]);
        ensure!(heads > Some(100.0), "{heads:?} heads, {bodies:?} bodies timed out");
        Ok(())
    });
}

fn open(daemon: &Daemon<'_>) -> Result<f64> {
    daemon.metrics()?.sum("lb_listener_open_connections", &[]).context("no such metric")
}

/// Resident memory, in bytes.
fn memory(pid: u32) -> Result<i64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("no number")?.parse::<i64>()? << 10)
}
