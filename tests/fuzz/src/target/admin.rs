//! Requests to the admin API, from the head that hyper has read on: every answer is one of its shapes.
//!
//! ```text
//! input = door (1 byte) method " " target "\n" *(host "\n")
//! ```
//!
//! A line that begins with `if-match:`, `content-type:` or `content-length:` is that field instead.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Instant,
};

use hyper::{
    HeaderMap, Method, Uri,
    header::{HOST, HeaderValue},
};
use lb::{
    admin::{
        View,
        answer::Answer,
        api::{Accepted, Door, accept, answer},
        changes::Etag,
        show::Readings,
    },
    config::{BackendIds, Snapshot, parse},
    health::HealthTable,
    keepalive::Shelf,
    limits::Permits,
    metrics::BACKENDS_MAX,
    model::Generation,
};
use serde_json::Value;

use super::Target;

/// See the module.
pub const TARGET: Target = Target { name: "admin", run, seeds, words };

fn run(input: &[u8]) {
    let Some((&door, input)) = input.split_first() else { return };
    let door = if door & 1 == 0 { Door::Unix } else { Door::Tcp };
    let mut lines = input.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let Some(space) = first.iter().position(|&byte| byte == b' ') else { return };
    let Ok(method) = Method::from_bytes(&first[..space]) else { return };
    let Ok(uri) = Uri::try_from(&first[space + 1..]) else { return };
    let mut headers = HeaderMap::new();
    for line in lines.take(5) {
        let field =
            |known: &'static str| Some((known, line.strip_prefix(known.as_bytes())?.strip_prefix(b":")?));
        let (name, value) = ["if-match", "content-type", "content-length"]
            .into_iter()
            .find_map(field)
            .unwrap_or((HOST.as_str(), line));
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let view = view();
    match accept(door, &method, &uri, &headers, view) {
        Ok(Accepted::Change(_)) => {
            assert!(![Method::GET, Method::HEAD].contains(&method) && door == Door::Unix);
        }
        Ok(Accepted::Read(read)) => {
            assert!([Method::GET, Method::HEAD].contains(&method));
            assert!(door == Door::Unix || !uri.path().starts_with("/v1/"));
            if let Some(question) = read.question() {
                assert_eq!(question.to_string().parse().as_ref(), Ok(question));
            }
            if let Some(wish) = read.wish() {
                assert!(wish.filter.snap >= 14 && wish.filter.bytes_per_tick > 0 && wish.filter.reasons != 0);
                assert!(wish.count != Some(0));
            }
            let is_capture = read.wish().is_some();
            let is_entry = uri.path().starts_with("/v1/config/") || read.generation().is_some();
            let answer = answer(read, view, Readings::default());
            check(&answer);
            let is_refused = is_capture && answer.status == 422 || is_entry && answer.status == 404;
            assert!(answer.status == 200 || is_refused, "{answer:?}");
        }
        Err(refusal) => {
            check(&refusal);
            assert!([400, 403, 404, 405, 409, 411, 413, 415, 421].contains(&refusal.status), "{refusal:?}");
        }
    }
}

fn check(answer: &Answer) {
    if answer.content_type == "application/json" {
        let document: Value = serde_json::from_str(&answer.body).expect("JSON");
        let error = &document["error"];
        let is_error = ["code", "message", "where"].iter().all(|key| error[key].is_string());
        assert_eq!(answer.status != 200, is_error, "{answer:?}");
    } else {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// A daemon that never ran.
fn view() -> &'static View {
    const CONFIG: &str = "version = 1\nxdp.interfaces = [\"eth0\"]\n\
        vip.dns = { address = [\"192.0.2.53\"], ports = [\"53/udp\"], forward = \"ipip\", pool = \"dns\" }\n\
        listener.web = { bind = [\"127.0.0.1:8080\"], protocol = \"http\", pool = \"app\" }\n\
        pool.dns.backends = [\"10.0.1.53\"]\npool.app.backends = [\"127.0.0.1:9001\"]\n";
    static VIEW: OnceLock<View> = OnceLock::new();
    VIEW.get_or_init(|| {
        let config = parse("f", CONFIG).unwrap_or_else(|problems| panic!("{problems}")).config;
        let snapshot = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).expect("few backends");
        View {
            started: Instant::now(),
            config_path: Some(PathBuf::from("lb.toml")),
            config_digest: Some("00ff".to_owned()),
            config: Arc::new(config),
            snapshot: Arc::new(snapshot),
            workers: Vec::new(),
            permits: Permits::new(BACKENDS_MAX, 1),
            shelf: Arc::new(Shelf::new(BACKENDS_MAX)),
            health: Arc::new(HealthTable::new(BACKENDS_MAX)),
            checks: Arc::default(),
            pools: Arc::default(),
            warnings: Vec::new(),
            open_files: 1024,
            no_kernel_tls: None,
            packets: None,
            log: Arc::default(),
            draining: Arc::default(),
            certificates: Arc::default(),
            names: Arc::default(),
            changes: None,
            etag: Etag("e".into()),
            generations: Arc::default(),
            documents: None,
            overrides: Arc::default(),
            degraded: None,
            drift: None,
            predecessors: Default::default(),
        }
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let heads = [
        "GET /metrics\n127.0.0.1:9900",
        "GET /healthz\nlocalhost",
        "GET /readyz\n[::1]:9900",
        "GET http://127.0.0.1/metrics\n127.0.0.1",
        "GET /v1/status\n",
        "POST /v1/status\n",
        "GET /v1/show/config\n",
        "GET /v1/show/vips\n",
        "GET /v1/why?flow=tcp+1.1.1.1:1+-%3E+2.2.2.2:2\n",
        "GET /v1/capture?vip=dns&backend=dns/10.0.1.53&reason=mtu,denied&sample=7&snap=128&payload=yes&count=9\n",
        "GET /v1/capture?outcome=dropped,passed&source=10.0.0.0/8&destination=2001:db8::1&protocol=tcp&rate=1&duration=5\n",
        "GET /metrics\na\nb",
        "HEAD /v1/config\n",
        "GET /v1/config/pool/app\n",
        "GET /v1/generations/1\n",
        "PUT /v1/config?dry_run=1\nif-match:\"e\", W/\"f\"\ncontent-type:application/json\ncontent-length:2",
        "PATCH /v1/config/pool/app\nif-match:*\ncontent-type:application/merge-patch+json\ncontent-length:2",
        "DELETE /v1/config/pool/app\n",
        "POST /v1/rollback/3\n",
        "POST /v1/backends/app/%5B2001:db8::1%5D:80/drain\n",
        "POST /v1/apply?path=/etc/lb/lb.toml\ncontent-type:application/toml\ncontent-length:2",
    ];
    heads.iter().flat_map(|head| [0, 1].map(|door| [&[door], head.as_bytes()].concat())).collect()
}

fn words() -> Vec<Vec<u8>> {
    [
        "GET ",
        "/metrics",
        "/healthz",
        "/v1/show/",
        "/v1/why?flow=",
        "/v1/capture?",
        "vip=dns",
        "backend=",
        "reason=",
        "outcome=",
        "source=",
        "destination=",
        "protocol=",
        "sample=",
        "snap=",
        "payload=yes",
        "count=",
        "duration=",
        "rate=",
        "interface=",
        "&",
        "%3E",
        "%",
        "+",
        "flows",
        "config",
        "workers",
        "0.0.0.0/0",
        "::/0",
        "18446744073709551615",
        "1000000000",
        "\nlocalhost",
        "http://",
        "dropped",
        "answered",
        "not-ours",
        "4294967295",
        "PUT ",
        "DELETE ",
        "/v1/config/",
        "/v1/backends/",
        "/undrain",
        "dry_run=",
        "\nif-match:",
        "\ncontent-type:application/json",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec()
}
