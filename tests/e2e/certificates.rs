//! Certificates of listeners: what `lb check` says of them, files that change under a daemon, tickets.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    authority::{Authority, Identity},
    curl::{Curl, Failure},
    daemon::{Daemon, verb},
    nginx::Nginx,
    process, requirement,
    scene::{self, Scene},
    wait::{self, PATIENCE},
};
use serde_json::json;

/// A year that no certificate of a test lives to see end.
const FAR: i32 = 4000;

/// curl: the certificate is not of an authority that it knows.
const UNKNOWN_ISSUER: i32 = 60;

const CONFIG: &str = r#"
[listener.shop]
bind = ["10.77.0.2:8443"]
protocol = "http"
pool = "web"
tls = ["shop"]

[tls.shop]
certificate = "shop.pem"
key = "shop.key"

[pool.web]
backends = ["10.77.0.11:80"]
"#;

/// Makes these the files of the listener's certificate.
fn put(scene: &Scene, identity: &Identity) -> Result<()> {
    fs::copy(&identity.certificate, scene.directory().join("shop.pem"))?;
    fs::copy(&identity.key, scene.directory().join("shop.key"))?;
    Ok(())
}

/// Asks for `a.test` as somebody who knows this authority alone.
fn ask(scene: &Scene, authority: &str) -> Result<u16> {
    let authority = scene.directory().join(authority);
    let options = ["--resolve", "a.test:8443:10.77.0.2", "--cacert", authority.to_str().context("a path")?];
    let client = &scene.topology().client;
    Ok(Curl::within(&client.netns).with(&options).get("https://a.test:8443/")?.status)
}

fn is_unknown(scene: &Scene, authority: &str) -> Result<()> {
    let failure = ask(scene, authority).map_err(|error| error.downcast::<Failure>());
    ensure!(matches!(failure, Err(Ok(Failure::Other(UNKNOWN_ISSUER)))), "{failure:?}");
    Ok(())
}

#[test]
fn what_is_wrong_with_files_is_said_before_anything_is_changed() {
    scene::run(|scene| {
        let directory = scene.directory();
        let ours = Authority::new(directory, "ours")?;
        put(scene, &ours.vouch("a.test", FAR)?)?;
        let file = directory.join("checked.toml");
        fs::write(&file, format!("version = 1\n{CONFIG}"))?;
        let check = || verb(&scene.topology().lb, &["check", "--config", file.to_str().context("a path")?]);
        check()?.success()?;
        let nginx = Nginx::start(scene, &scene.topology().b1)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        ensure!(ask(scene, "ours.pem")? == 200);
        let key = fs::read(directory.join("shop.key"))?;
        fs::copy(ours.vouch("b.test", FAR)?.key, directory.join("other.key"))?;
        let expected = "tls.shop.key: shop.key: is not the key of the certificate (certificate: shop.pem)";
        let applied = expected.replace("shop.key: is", "other.key: is");
        let change = json!({ "key": "other.key" });
        let refused = daemon.admin().ask("PATCH", "/v1/config/tls/shop", "", Some(&change))?;
        ensure!(refused.status == 422 && refused.body.to_string().contains("is not the key"), "{refused:?}");
        ensure!(
            refused.body.to_string().contains(&applied[applied.find("other").unwrap_or(0)..]),
            "{refused:?}"
        );
        fs::copy(directory.join("other.key"), directory.join("shop.key"))?;
        let checked = check()?;
        ensure!(checked.code == 1 && checked.stderr.contains(expected), "{checked:?}");
        fs::write(directory.join("shop.key"), key)?;
        put(scene, &ours.vouch("a.test", 2001)?)?;
        let checked = check()?;
        ensure!(
            checked.code == 0
                && checked.stderr.contains("warning: tls.shop: shop.pem has expired at 2001-01-01"),
            "{checked:?}"
        );
        drop(nginx);
        Ok(())
    });
}

#[test]
fn files_that_change_are_swapped_once_they_fit() {
    scene::run(|scene| {
        let directory = scene.directory();
        let (ours, theirs) = (Authority::new(directory, "ours")?, Authority::new(directory, "theirs")?);
        put(scene, &ours.vouch("a.test", FAR)?)?;
        let _nginx = Nginx::start(scene, &scene.topology().b1)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        ensure!(ask(scene, "ours.pem")? == 200);
        is_unknown(scene, "theirs.pem")?;
        // The certificate alone: that is no pair.
        let next = theirs.vouch("a.test", FAR + 1)?;
        fs::copy(&next.certificate, directory.join("shop.pem"))?;
        let log = scene.log("lb");
        wait::until_ok("a word about it", PATIENCE, || {
            let log = fs::read_to_string(&log)?;
            ensure!(log.contains("a changed file is of no use"), "{log}");
            Ok(())
        })?;
        ensure!(ask(scene, "ours.pem")? == 200);
        fs::copy(&next.key, directory.join("shop.key"))?;
        wait::until_ok("the other certificate", PATIENCE, || {
            ensure!(ask(scene, "theirs.pem")? == 200);
            Ok(())
        })?;
        is_unknown(scene, "ours.pem")?;
        ensure!(fs::read_to_string(&log)?.contains("certificates swapped"));
        // No generation came of it.
        ensure!(daemon.status()?["generation"] == 1, "{}", daemon.status()?);
        let metrics = daemon.metrics()?;
        let left = metrics.sum("lb_tls_certificate_left_days", &["tls=\"shop\"", "file=\"shop.pem\""]);
        ensure!(left.is_some_and(|days| days > 300_000.0), "{left:?}");
        put(scene, &theirs.vouch("a.test", 2001)?)?;
        wait::until_ok("a warning", PATIENCE, || {
            let status = daemon.status()?;
            ensure!(status["warnings"].to_string().contains("shop.pem has expired at 2001"), "{status}");
            Ok(())
        })
    });
}

/// What openssl says of a connection; its session is written to, or read from, a file.
fn session(scene: &Scene, version: &str, option: &str, file: &Path) -> Result<String> {
    let request = scene.directory().join("request");
    fs::write(&request, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")?;
    let mut client = scene.topology().client.netns.command("sh");
    let line = "openssl s_client $0 -connect 10.77.0.2:8443 -servername a.test -ign_eof $1 $2 < $3";
    client.args(["-c", line, version, option]).args([file, &request]);
    let output = process::run(client, PATIENCE)?;
    ensure!(output.stdout.contains("HTTP/1.1 200"), "{output:?}");
    Ok(output.stdout)
}

#[test]
fn tickets_outlive_the_process_that_made_them() {
    if !requirement::is_there("openssl", "openssl") {
        return;
    }
    scene::run(|scene| {
        let ours = Authority::new(scene.directory(), "ours")?;
        put(scene, &ours.vouch("a.test", FAR)?)?;
        let _nginx = Nginx::start(scene, &scene.topology().b1)?;
        let mut daemon = Daemon::start(scene, CONFIG)?;
        // sslyze finds no resumption with TLS 1.2: it looks for the same ticket again, and whoever comes back gets a new one.
        let versions = [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")];
        let file = |version: &str| scene.directory().join(format!("session{version}"));
        for (option, name) in versions {
            let first = session(scene, option, "-sess_out", &file(option))?;
            ensure!(first.contains(&format!("New, {name}")), "{first}");
            let again = session(scene, option, "-sess_in", &file(option))?;
            ensure!(again.contains(&format!("Reused, {name}")), "{again}");
            session(scene, option, "-sess_out", &file(option))?;
        }
        daemon.upgrade(None)?;
        for (option, name) in versions {
            let after = session(scene, option, "-sess_in", &file(option))?;
            ensure!(after.contains(&format!("Reused, {name}")), "{after}");
        }
        Ok(())
    });
}
