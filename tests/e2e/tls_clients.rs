//! What openssl and sslyze get from a TLS listener of the default profile.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    authority::Authority,
    daemon::Daemon,
    process::{self, Output},
    requirement,
    scene::{self, Scene},
    wait::PATIENCE,
};
use serde_json::{Value, json};

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

/// What sslyze calls a version, and the suites that it is to find there, in the order of their names.
const SUITES: [(&str, &[&str]); 6] = [
    ("ssl_2_0", &[]),
    ("ssl_3_0", &[]),
    ("tls_1_0", &[]),
    ("tls_1_1", &[]),
    (
        "tls_1_2",
        &["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    ),
    ("tls_1_3", &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]),
];

fn start(scene: &Scene) -> Result<Daemon<'_>> {
    let site = Authority::new(scene.directory(), "ours")?.vouch("a.test", FAR)?;
    fs::copy(&site.certificate, scene.directory().join("site.pem"))?;
    fs::copy(&site.key, scene.directory().join("site.key"))?;
    Daemon::start(scene, CONFIG)
}

/// A handshake of openssl's, and nothing behind it.
fn shake(scene: &Scene, options: &str) -> Result<Output> {
    let mut client = scene.topology().client.netns.command("openssl");
    client.args([
        "s_client",
        "-connect",
        "10.77.0.2:8443",
        "-servername",
        "a.test",
        "-verify_return_error",
        "-CAfile",
    ]);
    client.arg(scene.directory().join("ours.pem")).args(options.split_whitespace());
    process::run(client, PATIENCE)
}

#[test]
fn openssl_agrees_on_versions_and_protocols() {
    if !requirement::is_there("openssl", "openssl") {
        return;
    }
    scene::run(|scene| {
        let _daemon = start(scene)?;
        for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3"), ("", "TLSv1.3")] {
            for (alpn, agreed) in [
                ("-alpn h2,http/1.1", "ALPN protocol: h2\n"),
                ("-alpn http/1.1,h2", "ALPN protocol: h2\n"),
                ("-alpn h2", "ALPN protocol: h2\n"),
                ("-alpn http/1.1", "ALPN protocol: http/1.1\n"),
                ("", "No ALPN negotiated\n"),
            ] {
                let output = shake(scene, &format!("{option} {alpn}"))?;
                for expected in [&format!("New, {version}, Cipher is "), agreed, "Verify return code: 0 (ok)"]
                {
                    ensure!(output.stdout.contains(expected), "{option} {alpn}: no {expected:?}: {output:?}");
                }
            }
        }
        for (options, alert) in [
            ("-alpn spdy/3", "no application protocol"),
            ("-tls1_1 -cipher DEFAULT@SECLEVEL=0", "handshake failure"),
            ("-tls1_2 -cipher AES128-GCM-SHA256", "handshake failure"),
            ("-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256", "handshake failure"),
            ("-tls1_3 -curves X448", "handshake failure"),
            ("-servername b.test", "unrecognized name"),
        ] {
            let output = shake(scene, options)?;
            ensure!(output.code != 0 && output.stderr.contains(alert), "{options}: no {alert:?}: {output:?}");
        }
        Ok(())
    });
}

#[test]
fn openssl_says_what_is_safe_early() {
    if !requirement::is_there("openssl", "openssl") {
        return;
    }
    scene::run(|scene| {
        let directory = scene.directory();
        let site = Authority::new(directory, "ours")?.vouch("a.test", FAR)?;
        fs::copy(&site.certificate, directory.join("site.pem"))?;
        fs::copy(&site.key, directory.join("site.key"))?;
        let mut daemon = Daemon::start(scene, &format!("{CONFIG}early_data = true\n"))?;
        let request = |method: &str| {
            format!("{method} / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        };
        fs::write(directory.join("get"), request("GET"))?;
        fs::write(directory.join("post"), request("POST"))?;
        // What openssl is told to say is sent after what it is told to say early.
        let ask = |options: &str, said: &str| -> Result<Output> {
            let mut client = scene.topology().client.netns.command("sh");
            let directory = directory.display();
            client.arg("-c").arg(format!(
                "cd {directory} && openssl s_client -connect 10.77.0.2:8443 -servername a.test -CAfile ours.pem -tls1_3 \
                 -alpn http/1.1 -ign_eof {options} < {said}"
            ));
            process::run(client, PATIENCE)
        };
        let met = ask("-sess_out session", "get")?;
        ensure!(met.stdout.contains("HTTP/1.1 200 OK"), "{met:?}");
        for (early, accepted) in [("get", true), ("get", false), ("post", true)] {
            if early == "post" {
                ask("-sess_out session", "get")?;
            }
            // The same ticket again is none.
            let said = ask(&format!("-sess_in session -early_data {early}"), "/dev/null")?;
            let expected = if accepted { "Early data was accepted" } else { "Early data was rejected" };
            ensure!(said.stdout.contains(expected), "{early}: no {expected:?}: {said:?}");
            ensure!(said.stdout.contains("HTTP/1.1 200 OK") == accepted, "{early}: {said:?}");
        }
        let metrics = daemon.metrics()?;
        for (name, count) in [
            ("tls_early_data_accepted", 2),
            ("tls_early_data_rejected", 1),
            ("early_requests_passed", 1),
            ("early_requests_waited", 1),
        ] {
            let name = format!("lb_listener_{name}_total");
            let counted = metrics.sum(&name, &["listener=\"site\""]);
            ensure!(counted == Some(f64::from(count)), "{name}: {counted:?}, and not {count}");
        }
        daemon.process().kill();
        Ok(())
    });
}

/// Of its checks those of versions, kinds of suites and forward secrecy: all of them take more than a minute, most of it waiting,
/// and what is known of broken servers sslyze asks for, too. What is left of them finds here that there is no order of the
/// server's among suites (each is as good as the others, and clients know which of them they are fast with), and that routes
/// which do not say so add no security headers.
#[test]
fn testssl_finds_nothing() {
    /// Many small programs, on a machine that has others to run.
    const LIMIT: Duration = Duration::from_secs(180);
    if !requirement::is_there("testssl", "testssl.sh") {
        return;
    }
    scene::run(|scene| {
        let _daemon = start(scene)?;
        let said = scene.directory().join("said.json");
        let mut testssl = scene.topology().client.netns.command("testssl");
        testssl.args(["--ip", "10.77.0.2", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "min"]);
        testssl.args(["-p", "-s", "-f", "--fast", "--jsonfile"]).arg(&said).arg("a.test:8443");
        let output = process::run(testssl, LIMIT)?;
        let said: Value = serde_json::from_str(&fs::read_to_string(&said)?).context(output.stdout)?;
        let said = said.as_array().context("no list")?;
        for (id, found) in [
            ("SSLv3", "not offered"),
            ("TLS1_1", "not offered"),
            ("TLS1_2", "offered"),
            ("TLS1_3", "offered with final"),
            ("cipherlist_NULL", "not offered"),
        ] {
            let is_it = |one: &&Value| one["id"] == id && one["finding"] == found;
            ensure!(said.iter().find(is_it).is_some(), "{id}: no {found:?}: {said:?}");
        }
        let is_good = |one: &&Value| one["severity"] == "OK" || one["severity"] == "INFO";
        // It would like its own openssl to have GOST.
        let bad: Vec<_> = said.iter().filter(|one| !is_good(one) && one["id"] != "engine_problem").collect();
        ensure!(bad.is_empty(), "{bad:?}");
        Ok(())
    });
}

#[test]
fn sslyze_finds_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default();
    let program = root.join("target/tests/tls/bin/sslyze");
    if !requirement::is_file_there(&program.display().to_string(), "python3-venv; then `cargo xtask setup`") {
        return;
    }
    scene::run(|scene| {
        let _daemon = start(scene)?;
        let said = scene.directory().join("said.json");
        let mut sslyze = scene.topology().client.netns.command(&program);
        sslyze.args(["--sni", "a.test", "--mozilla_config", "disable", "--json_out"]).arg(&said);
        sslyze.args(["--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3"]);
        sslyze.args([
            "--heartbleed",
            "--openssl_ccs",
            "--robot",
            "--compression",
            "--reneg",
            "--early_data",
            "--ems",
            "--fallback",
        ]);
        sslyze.arg("10.77.0.2:8443");
        process::run(sslyze, PATIENCE)?.success()?;
        let said: Value = serde_json::from_str(&fs::read_to_string(&said)?)?;
        let found = &said["server_scan_results"][0]["scan_result"];
        let found = found.as_object().context("nothing was scanned")?;
        let result = |what: &str| {
            ensure!(found[what]["status"] == "COMPLETED", "{what}: {}", found[what]);
            Ok(&found[what]["result"])
        };
        for (version, expected) in SUITES {
            let suites = result(&format!("{version}_cipher_suites"))?["accepted_cipher_suites"].as_array();
            let mut suites: Vec<_> =
                suites.into_iter().flatten().map(|one| &one["cipher_suite"]["openssl_name"]).collect();
            suites.sort_by_key(|name| name.as_str());
            ensure!(suites == *expected, "{version}: {suites:?}");
        }
        for (what, key, expected) in [
            ("heartbleed", "is_vulnerable_to_heartbleed", json!(false)),
            ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", json!(false)),
            ("robot", "robot_result", json!("NOT_VULNERABLE_RSA_NOT_SUPPORTED")),
            ("session_renegotiation", "supports_secure_renegotiation", json!(true)),
            ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", json!(false)),
            ("tls_1_3_early_data", "supports_early_data", json!(false)),
            ("tls_compression", "supports_compression", json!(false)),
            ("tls_extended_master_secret", "supports_ems_extension", json!(true)),
            ("tls_fallback_scsv", "supports_fallback_scsv", json!(true)),
        ] {
            ensure!(result(what)?[key] == expected, "{what}: {}", result(what)?);
        }
        Ok(())
    });
}
