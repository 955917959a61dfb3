//! TLS while much goes on: who comes back with a ticket, certificates that change under those who come, and certificates that
//! both sides ask for.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    authority::{Authority, Identity},
    curl::{Curl, Failure, Reply},
    daemon::Daemon,
    peer,
    process::Process,
    requirement,
    scene::{self, Scene},
    wait::{self, PATIENCE},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};

/// A year that no certificate of a test lives to see end.
const FAR: i32 = 4000;

const CONFIG: &str = r#"
[listener.site]
bind = ["10.77.0.2:8443"]
protocol = "http"
tls = ["site"]

[route.all]
listener = "site"
respond = { status = 200 }

[tls.site]
certificate = "site.pem"
key = "site.key"
"#;

/// Both files, each at once.
fn put(scene: &Scene, identity: &Identity) -> Result<()> {
    for (from, name) in [(&identity.certificate, "site.pem"), (&identity.key, "site.key")] {
        let (next, file) = (scene.directory().join("next"), scene.directory().join(name));
        fs::copy(from, &next)?;
        fs::rename(next, file)?;
    }
    Ok(())
}

/// One who keeps the tickets that it gets.
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    pub(crate) fn new(
        authorities: &[&Path],
        versions: &[&'static SupportedProtocolVersion],
        resumption: Resumption,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for file in authorities {
            roots.add(CertificateDer::from_pem_file(file)?)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = resumption;
        Ok(Self(Arc::new(config)))
    }

    /// Connects, asks, and is answered to the end: how hands were shaken, and whose certificate was shown.
    pub(crate) fn visit(&self, scene: &Scene) -> Result<(HandshakeKind, Vec<u8>)> {
        let topology = scene.topology();
        let socket = peer::connect(&topology.client.netns, topology.lb.v4.into(), 8443)?;
        let session = ClientConnection::new(self.0.clone(), ServerName::try_from("a.test")?)?;
        let mut stream = StreamOwned::new(session, socket);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
        let kind = stream.conn.handshake_kind().context("hands were not shaken")?;
        let shown = stream.conn.peer_certificates().and_then(|chain| chain.first());
        Ok((kind, shown.context("no certificate")?.to_vec()))
    }
}

/// Comes from a core: the worker that is met is on the same.
fn visit_on(core: usize, scene: &Scene, client: &Client) -> Result<HandshakeKind> {
    let visit = || {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set)?;
        Ok(client.visit(scene)?.0)
    };
    let visited = thread::scope(|scope| scope.spawn(visit).join());
    visited.unwrap_or_else(|_| Err(anyhow::anyhow!("a client has panicked")))
}

/// Lets each come this often, on one core after another; how often any went on with its session.
fn come_back(scene: &Scene, clients: &[Client], times: usize, cores: usize) -> Result<usize> {
    let mut resumed = 0;
    for time in 1..=times {
        for (at, client) in clients.iter().enumerate() {
            let kind = visit_on((at + time) % cores, scene, client)?;
            resumed += usize::from(kind == HandshakeKind::Resumed);
        }
    }
    Ok(resumed)
}

/// openssl says the same of either version. sslyze, which compares tickets, finds no resumption with TLS 1.2: who comes back is
/// given a new one here, as RFC 5077, 3.3 lets a server.
#[test]
fn who_comes_back_goes_on_at_any_worker_and_behind_an_upgrade() {
    const CLIENTS: usize = 24;
    const TIMES: usize = 4;
    scene::run(|scene| {
        let cores = thread::available_parallelism()?.get();
        let ours = Authority::new(scene.directory(), "ours")?;
        put(scene, &ours.vouch("a.test", FAR)?)?;
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let root = scene.directory().join("ours.pem");
        let client = |at: usize| {
            let version = if at.is_multiple_of(2) { &TLS12 } else { &TLS13 };
            Client::new(&[&root], &[version], Resumption::in_memory_sessions(8))
        };
        let clients = (0..CLIENTS).map(client).collect::<Result<Vec<_>>>()?;
        for (at, client) in clients.iter().enumerate() {
            ensure!(visit_on(at % cores, scene, client)? != HandshakeKind::Resumed);
        }
        let resumed = come_back(scene, &clients, TIMES, cores)?;
        ensure!(resumed * 100 > CLIENTS * TIMES * 95, "{resumed} of {} went on", CLIENTS * TIMES);
        let metrics = daemon.metrics()?;
        for (name, expected) in [("handshakes", CLIENTS * (TIMES + 1)), ("resumptions", resumed)] {
            let counted = metrics.sum(&format!("lb_listener_tls_{name}_total"), &["listener=\"site\""]);
            ensure!(counted == Some(expected as f64), "{name}: {counted:?}, and not {expected}");
        }
        let met = daemon.show("workers")?;
        let met: Vec<_> = met.rows().iter().map(|row| row.number("accepted")).collect::<Result<_>>()?;
        ensure!(met.iter().all(|&count| count > 0), "not all workers were met: {met:?}");
        daemon.upgrade(None)?;
        let resumed = come_back(scene, &clients, 2, cores)?;
        ensure!(resumed * 100 > CLIENTS * 2 * 95, "{resumed} of {} went on behind the upgrade", CLIENTS * 2);
        Ok(())
    });
}

#[test]
fn certificates_are_swapped_under_those_who_come() {
    const PAIRS: i32 = 12;
    scene::run(|scene| {
        let directory = scene.directory();
        let (ours, theirs) = (Authority::new(directory, "ours")?, Authority::new(directory, "theirs")?);
        let pair = |at: i32| if at % 2 == 0 { &ours } else { &theirs }.vouch("a.test", FAR + at);
        let pairs = (0..PAIRS).map(pair).collect::<Result<Vec<_>>>()?;
        let leaf = |pair: &Identity| Ok(CertificateDer::from_pem_file(&pair.certificate)?.to_vec());
        let leaves = pairs.iter().map(leaf).collect::<Result<Vec<_>>>()?;
        put(scene, &pairs[0])?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let roots = [directory.join("ours.pem"), directory.join("theirs.pem")];
        let (seen, is_over) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
        let sees = |leaf: &Vec<u8>| {
            wait::until("a certificate", PATIENCE, || {
                seen.lock().unwrap_or_else(PoisonError::into_inner).contains(leaf).then_some(())
            })
        };
        let come = || -> Result<usize> {
            let authorities = [roots[0].as_path(), roots[1].as_path()];
            let client = Client::new(&authorities, &[&TLS13, &TLS12], Resumption::disabled())?;
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let (_, shown) = client.visit(scene)?;
                seen.lock().unwrap_or_else(PoisonError::into_inner).insert(shown);
                count += 1;
            }
            Ok(count)
        };
        let swap = || -> Result<()> {
            sees(&leaves[0])?;
            // One pair of files after another, while somebody looks at them; what is there last stays.
            for pair in pairs[1..].iter().cycle().take(40) {
                put(scene, pair)?;
                thread::sleep(Duration::from_millis(20));
            }
            let last = &pairs[pairs.len() - 1];
            put(scene, last)?;
            sees(&leaves[leaves.len() - 1])?;
            // One config after another, each with a pair of its own.
            for (pair, leaf) in pairs.iter().zip(&leaves).skip(1).take(6) {
                let name = |file: &Path| Some(file.file_name()?.to_str()?.to_owned());
                let change = json!({ "certificate": name(&pair.certificate), "key": name(&pair.key) });
                let changed = daemon.admin().ask("PATCH", "/v1/config/tls/site", "", Some(&change))?;
                ensure!(changed.status == 200, "{changed:?}");
                sees(leaf)?;
            }
            Ok(())
        };
        let (swapped, came) = thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(come)).collect();
            let swapped = swap();
            is_over.store(true, Ordering::Relaxed);
            let join = |thread: thread::ScopedJoinHandle<'_, Result<usize>>| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client has panicked")))
            };
            (swapped, threads.into_iter().map(join).collect::<Result<Vec<_>>>())
        });
        // Who came and failed says why.
        came?;
        swapped?;
        let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.iter().all(|shown| leaves.contains(shown)), "a certificate of no pair");
        Ok(())
    });
}

const MUTUAL: &str = r#"
[listener.site]
bind = ["10.77.0.2:8443"]
protocol = "http"
tls = ["site"]
pool = "known"

[route.unknown]
listener = "site"
path = "/unknown"
pool = "unknown"

[tls.site]
certificate = "site.pem"
key = "site.key"

[tls.site.client_auth]
ca = "file:clients.pem"
mode = "required"

[pool.known]
backends = ["10.77.0.11:8443"]
tls = { ca = "file:inner.pem", sni = "inner.test", certificate = "us.pem", key = "us.key" }

[pool.unknown]
backends = ["10.77.0.11:8443"]
tls = { ca = "file:inner.pem", sni = "inner.test" }
"#;

/// openssl's own server, which tells who asked, and answers nobody whom this authority does not know.
fn serve(scene: &Scene, identity: &Identity, known: &Identity) -> Result<Process> {
    let host = &scene.topology().b1;
    let mut server = host.netns.command("openssl");
    server.args(["s_server", "-accept", "8443", "-www", "-Verify", "1", "-verify_return_error", "-CAfile"]);
    server.arg(scene.directory().join("inner.pem"));
    server.arg("-key").arg(&identity.key).arg("-cert").arg(&identity.certificate);
    let mut server = Process::spawn("openssl", server, &scene.log("openssl"))?;
    server.wait_until("answering openssl", PATIENCE, || {
        let reply = show(Curl::within(&host.netns), known)?.with(&["-k"]).get("https://10.77.0.11:8443/")?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(())
    })?;
    Ok(server)
}

fn show(curl: Curl, identity: &Identity) -> Result<Curl> {
    let (certificate, key) = (identity.certificate.to_str(), identity.key.to_str());
    Ok(curl.with(&["--cert", certificate.context("a path")?, "--key", key.context("a path")?]))
}

#[test]
fn both_sides_ask_for_certificates() {
    if !requirement::is_there("openssl", "openssl") {
        return;
    }
    scene::run(|scene| {
        let directory = scene.directory();
        let [ours, clients, inner] = ["ours", "clients", "inner"].map(|name| Authority::new(directory, name));
        let (ours, clients, inner) = (ours?, clients?, inner?);
        put(scene, &ours.vouch("a.test", FAR)?)?;
        let us = inner.vouch("us.test", FAR)?;
        fs::copy(&us.certificate, directory.join("us.pem"))?;
        fs::copy(&us.key, directory.join("us.key"))?;
        let _server = serve(scene, &inner.vouch("inner.test", FAR)?, &us)?;
        let daemon = Daemon::start(scene, MUTUAL)?;
        let curl = || -> Result<Curl> {
            let root = directory.join("ours.pem");
            let options =
                ["--resolve", "a.test:8443:10.77.0.2", "--cacert", root.to_str().context("a path")?];
            Ok(Curl::within(&scene.topology().client.netns).with(&options))
        };
        let known = clients.vouch("client.test", FAR)?;
        for way in ["--http1.1", "--http2"] {
            let get = |path: &str| -> Result<Reply> {
                show(curl()?, &known)?.with(&[way]).get(&format!("https://a.test:8443{path}"))
            };
            let reply = get("/")?;
            ensure!(reply.status == 200 && reply.body.contains("DNS:us.test"), "{way}: {reply:?}");
            let reply = get("/unknown")?;
            ensure!(reply.status == 502, "{way}: {reply:?}");
        }
        // Nobody is let in by the other side's authority, nor without a certificate.
        let stranger = inner.vouch("client.test", FAR + 1)?;
        for (who, curl) in [("nobody", curl()?), ("a stranger", show(curl()?, &stranger)?)] {
            let failure = curl.get("https://a.test:8443/").map_err(|error| error.downcast::<Failure>());
            ensure!(matches!(failure, Err(Ok(Failure::Closed | Failure::Other(35)))), "{who}: {failure:?}");
        }
        let requests = daemon.metrics()?.sum("lb_listener_requests_total", &["listener=\"site\""]);
        ensure!(requests == Some(4.0), "{requests:?} requests");
        Ok(())
    });
}
