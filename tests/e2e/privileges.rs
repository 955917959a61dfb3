//! Whoever may use the admin socket gets no more than that: no file outside the config's directory, no program, no other
//! daemon. And what is secret stands in nothing that is said.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::Daemon,
    nginx::Nginx,
    scene::{self, Scene},
    wait::{self, PATIENCE},
};
use serde_json::{Value, json};

/// Nobody's.
const USER: u32 = 64_999;
const CAPABILITIES: [&str; 6] = ["bpf", "perfmon", "net_admin", "net_raw", "net_bind_service", "ipc_lock"];

/// 32 bytes each, as hexadecimal digits; the first 16 are a key of QUIC.
const SECRETS: [(&str, &str); 3] = [
    ("hash.key", "c0ffee00c0ffee01c0ffee02c0ffee03c0ffee04c0ffee05c0ffee06c0ffee07"),
    ("sticky.key", "decade10decade11decade12decade13decade14decade15decade16decade17"),
    ("quic.key", "facade20facade21facade22facade23"),
];

/// Method, path and body.
type Asked = (&'static str, String, Option<Value>);

/// What a request carries that nobody is to read later.
const CARRIED: [&str; 3] = ["canary-in-query", "canary-in-cookie", "canary-in-authorization"];

const CONFIG: &str = r#"
[xdp]
interfaces = ["eth0"]
secret = "file:hash.key"

[log]
access = "json"
file = "@LOG@"

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"

[route.all]
listener = "web"
pool = "web"

[vip.quic]
address = ["192.0.2.10"]
ports = ["443/udp"]
forward = "ipip"
pool = "far"
quic = { keys = { 0 = "file:quic.key" } }

[pool.far]
backends = [{ address = "10.77.0.12", server_id = 1 }]

[pool.web]
backends = ["10.77.0.11:80"]
sticky = { cookie = "lb", secret = "file:sticky.key" }
"#;

fn start<'s>(scene: &'s Scene) -> Result<Daemon<'s>> {
    let directory = scene.directory();
    for (name, secret) in SECRETS {
        fs::write(directory.join(name), secret)?;
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o644))?;
    }
    // The daemon's own directory is made by its start.
    let log = directory.join("run/access.log");
    Daemon::start_as(scene, &CONFIG.replace("@LOG@", &log.display().to_string()), USER, &CAPABILITIES)
}

#[test]
fn the_api_opens_no_other_file_and_starts_no_other_program() {
    scene::run_alone(|scene| {
        let daemon = start(scene)?;
        let directory = scene.directory();
        fs::write(directory.with_extension("outside"), SECRETS[0].1)?;
        let outside = format!("../{}.outside", directory.file_name().context("no name")?.to_string_lossy());
        symlink(directory.with_extension("outside"), directory.join("link.key"))?;
        let state = directory.join("state/generations/1.whole").display().to_string();
        let run = directory.join("run").display().to_string();
        let merge = |patch: Value| ("PATCH", "/v1/config".to_owned(), Some(patch));
        let secret = |path: &str| merge(json!({ "xdp": { "secret": format!("file:{path}") } }));
        // What is asked, and what the refusal names.
        let rows: Vec<(&str, Asked, &str)> = vec![
            ("a secret by a way up", secret(&outside), "secret"),
            ("a secret from the root", secret("/etc/hostname"), "secret"),
            ("a secret by a link", secret("link.key"), "secret"),
            (
                "a cookie's secret by a link",
                merge(json!({ "pool": { "web": { "sticky": { "secret": "file:link.key" } } } })),
                "sticky.secret",
            ),
            ("a list by a way up", merge(json!({ "xdp": { "deny": ["file:../../etc/hosts"] } })), "xdp.deny"),
            (
                "a key of QUIC by a link",
                merge(json!({ "vip": { "quic": { "quic": { "keys": { "0": "file:link.key" } } } } })),
                "quic.keys",
            ),
            (
                "programs of a directory that is not root's",
                merge(json!({
                    "health": { "programs_dir": run },
                    "pool": { "web": { "health": { "exec": "sh", "every": "1s" } } },
                })),
                "programs_dir",
            ),
            (
                "a program outside",
                merge(json!({
                    "health": { "programs_dir": "/usr/bin" },
                    "pool": { "web": { "health": { "exec": "../../bin/sh", "every": "1s" } } },
                })),
                "exec",
            ),
            ("a log among generations", merge(json!({ "log": { "file": state } })), "log"),
            ("another state", merge(json!({ "state": { "dir": "/srv/lb" } })), "state.dir"),
            ("another socket", merge(json!({ "admin": { "socket": "/tmp/lb.sock" } })), "admin.socket"),
            ("a program's relative path", ("POST", "/v1/upgrade?binary=lb".to_owned(), None), "absolute"),
            ("no program", ("POST", "/v1/upgrade?binary=/etc/passwd".to_owned(), None), "no program"),
        ];
        let before = daemon.admin().ask("GET", "/v1/config", "", None)?;
        for (what, (method, path, body), named) in rows {
            let answer = daemon.admin().ask(method, &path, "", body.as_ref())?;
            let said = answer.body.to_string();
            ensure!(matches!(answer.status, 400 | 409 | 422), "{what}: {} {said}", answer.status);
            ensure!(said.contains(named), "{what}: {said}");
            ensure!(!said.contains(SECRETS[0].1) && !said.contains("localhost"), "{what}: {said}");
        }
        let far = directory.join("far");
        fs::create_dir(&far)?;
        fs::write(far.join("far.key"), SECRETS[0].1)?;
        let own = fs::read_to_string(directory.join("lb.toml"))?;
        fs::write(far.join("far.toml"), own.replace("file:sticky.key", "file:far.key"))?;
        let applied = daemon.verb(&["apply", &far.join("far.toml").display().to_string()])?;
        ensure!(
            applied.code == 1 && applied.stderr.contains("sticky.secret far.key"),
            "a file that makes another directory the config's: {applied:?}"
        );
        let after = daemon.admin().ask("GET", "/v1/config", "", None)?;
        ensure!(before.body == after.body && before.etag == after.etag, "{} {}", before.body, after.body);
        fs::remove_file(directory.with_extension("outside"))?;
        Ok(())
    });
}

#[test]
fn secrets_are_in_nothing_that_is_said_or_kept() {
    scene::run_alone(|scene| {
        let _nginx = Nginx::start(scene, &scene.topology().b1)?;
        let daemon = start(scene)?;
        let [query, cookie, authorization] = CARRIED;
        let web = url(scene.topology().lb.v4.into(), 8080, &format!("/echo?token={query}"));
        let client = Curl::within(&scene.topology().client.netns);
        let fields = [format!("Cookie: s={cookie}"), format!("Authorization: Bearer {authorization}")];
        let reply = client.with(&["-H", &fields[0], "-H", &fields[1]]).get(&web)?;
        ensure!(reply.status == 200, "{reply:?}");
        let log = scene.directory().join("run/access.log");
        let line = || fs::read_to_string(&log).ok().filter(|text| text.contains("/echo"));
        wait::until("line of the request", PATIENCE, line)?;
        // A change, a refused one and a rollback, each with its traces.
        daemon.admin().change(
            "PATCH",
            "/v1/config",
            Some(&json!({ "pool": { "far": { "balance": "maglev" } } })),
        )?;
        let refused = json!({ "xdp": { "secret": "file:no.key" } });
        let refused = daemon.admin().ask("PATCH", "/v1/config", "", Some(&refused))?;
        ensure!(refused.status == 422, "{}", refused.body);
        daemon.admin().change("POST", "/v1/rollback/1", None)?;

        let mut said = Vec::new();
        for path in ["/v1/status", "/v1/config", "/v1/generations", "/v1/generations/1", "/v1/openapi.json"] {
            said.push((path.to_owned(), daemon.admin().ask("GET", path, "", None)?.body.to_string()));
        }
        let why = "/v1/why?request=GET%20http://10.77.0.2:8080/echo";
        said.push((why.to_owned(), daemon.admin().ask("GET", why, "", None)?.body.to_string()));
        for what in ["backends", "pools", "vips", "flows", "listeners", "routes", "workers", "drops", "names"]
        {
            let answer = daemon.admin().ask("GET", &format!("/v1/show/{what}"), "", None)?;
            said.push((what.to_owned(), answer.body.to_string()));
        }
        let file = scene.directory().join("lb.toml").display().to_string();
        for verb in [vec!["status"], vec!["show", "generations"], vec!["diff", &file]] {
            let output = daemon.verb(&verb)?;
            said.push((verb.join(" "), output.stdout + &output.stderr));
        }
        said.push(("log".to_owned(), fs::read_to_string(scene.log("lb"))?));
        let mut kept = Vec::new();
        walk(&scene.directory().join("state"), &mut kept)?;
        walk(&scene.directory().join("run"), &mut kept)?;
        ensure!(kept.iter().any(|(path, _)| path.contains("audit")), "no audit log");
        said.extend(kept);
        for (what, text) in &said {
            for canary in SECRETS.iter().map(|(_, secret)| &secret[..16]).chain(CARRIED) {
                ensure!(!text.contains(canary), "{what} has {canary}: {text}");
            }
            for (name, secret) in SECRETS {
                ensure!(!has_bytes(text, secret), "{what} has the bytes of {name}");
            }
        }
        let generations = said.iter().find(|(path, _)| path == "/v1/generations").context("no list")?;
        ensure!(generations.1.contains("\"hash.key\":\""), "no digests: {}", generations.1);
        Ok(())
    });
}

/// Text of every file, bytes that are no UTF-8 as one character each.
fn walk(directory: &Path, into: &mut Vec<(String, String)>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), into)?;
        } else if kind.is_file() && entry.file_name() != "secret" {
            let bytes = fs::read(entry.path())?;
            into.push((
                entry.path().display().to_string(),
                bytes.iter().map(|byte| char::from(*byte)).collect(),
            ));
        }
    }
    Ok(())
}

/// The first half of a secret, not as digits but as it is.
fn has_bytes(text: &str, secret: &str) -> bool {
    let bytes = (0..8).filter_map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).ok());
    text.contains(&bytes.map(char::from).collect::<String>())
}
