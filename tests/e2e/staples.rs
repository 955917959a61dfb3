//! What authorities say of certificates, asked of openssl's responder and shown to openssl's client.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    authority::Authority,
    daemon::{Daemon, verb},
    nginx::Nginx,
    process::{self, Process},
    requirement,
    scene::{self, Scene},
    wait::{self, PATIENCE},
};

const CONFIG: &str = r#"
[listener.shop]
bind = ["10.77.0.2:8443"]
protocol = "http"
pool = "web"
tls = ["shop"]

[tls.shop]
certificate = "shop.pem"
key = "shop.key"
ocsp = "fetch"

[pool.web]
backends = ["10.77.0.11:80"]
"#;

const RESPONDER: &str = "http://10.77.0.11:2560/ocsp";
const SERIAL: u8 = 0x4d;

/// openssl's own responder, which says this of the certificate: `V` for a good one, `R` for one that was revoked.
fn responder(scene: &Scene, state: &str) -> Result<Process> {
    let directory = scene.directory();
    let revoked = if state == "R" { "250101000000Z" } else { "" };
    let line = format!("{state}\t400101000000Z\t{revoked}\t{SERIAL:02X}\tunknown\t/CN=a.test\n");
    fs::write(directory.join("index"), line)?;
    let mut command = scene.topology().b1.netns.command("openssl");
    command.args(["ocsp", "-port", "2560", "-index", "index", "-ndays", "1", "-CA", "ours.pem"]);
    command.args(["-rsigner", "ours.pem", "-rkey", "ours.key"]).current_dir(directory);
    Process::spawn("openssl", command, &scene.log(&format!("responder-{state}")))
}

/// What openssl says of a handshake in which it asks for an answer.
fn handshake(scene: &Scene) -> Result<String> {
    let mut client = scene.topology().client.netns.command("sh");
    let line = "openssl s_client -connect 10.77.0.2:8443 -servername a.test -status < /dev/null";
    client.args(["-c", line]);
    Ok(process::run(client, PATIENCE)?.stdout)
}

fn warnings(daemon: &Daemon<'_>) -> Result<String> {
    Ok(daemon.status()?["warnings"].to_string())
}

#[test]
fn an_answer_is_fetched_shown_and_kept_until_it_is_old() {
    if !requirement::is_there("openssl", "openssl") {
        return;
    }
    scene::run(|scene| {
        let directory = scene.directory();
        let ours = Authority::new(directory, "ours")?;
        let identity = ours.vouch_answerably("a.test", 4000, SERIAL, RESPONDER)?;
        fs::copy(&identity.certificate, directory.join("shop.pem"))?;
        fs::copy(&identity.key, directory.join("shop.key"))?;
        let _nginx = Nginx::start(scene, &scene.topology().b1)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        wait::until_ok("a word about it", PATIENCE, || {
            let said = warnings(&daemon)?;
            let expected = "tls.shop: shop.pem has no OCSP answer: http://10.77.0.11:2560/ocsp (10.77.0.11:2560): Connection refused";
            ensure!(said.contains(expected), "{said}");
            Ok(())
        })?;
        let said = handshake(scene)?;
        ensure!(said.contains("OCSP response: no response sent"), "{said}");
        let good = responder(scene, "V")?;
        wait::until_ok("an answer", PATIENCE, || {
            let said = handshake(scene)?;
            ensure!(said.contains("OCSP Response Status: successful (0x0)"), "{said}");
            ensure!(said.contains("Cert Status: good"), "{said}");
            Ok(())
        })?;
        // Whoever was there stays, and no generation came of it.
        ensure!(daemon.status()?["generation"] == 1 && warnings(&daemon)? == "[]", "{}", daemon.status()?);
        let metrics = daemon.metrics()?;
        let left = metrics.sum("lb_tls_ocsp_left_days", &["tls=\"shop\"", "file=\"shop.pem\""]);
        ensure!(left.is_some_and(|days| (0.9..=1.0).contains(&days)), "{left:?}");
        let fetches =
            |result: &str| metrics.sum("lb_tls_ocsp_fetches_total", &[&format!("result=\"{result}\"")]);
        ensure!(fetches("good") == Some(1.0) && fetches("unreachable") >= Some(1.0));
        let shown = daemon.show("certificates")?;
        let row = shown.row("certificate", "tls.shop")?;
        ensure!(row.text("staple")? == "good" && row.text("key_type")? == "ecdsa");
        let why = daemon.verb(&["why", "https://a.test:8443/"])?.success()?;
        let expected = "tls.shop, for the name a.test by name a.test: ecdsa shop.pem (";
        ensure!(why.contains(expected) && why.contains("pool web"), "{why}");
        drop(good);
        // Of another certificate nothing was said yet, and what is said of it then is not shown.
        let _revoked = responder(scene, "R")?;
        let next = ours.vouch_answerably("a.test", 4001, SERIAL, RESPONDER)?;
        fs::copy(&next.certificate, directory.join("shop.pem"))?;
        fs::copy(&next.key, directory.join("shop.key"))?;
        wait::until_ok("a word about it", PATIENCE, || {
            let said = warnings(&daemon)?;
            ensure!(said.contains("/ocsp says that the certificate was revoked"), "{said}");
            Ok(())
        })?;
        let said = handshake(scene)?;
        ensure!(said.contains("OCSP response: no response sent"), "{said}");
        Ok(())
    });
}

#[test]
fn a_certificate_whose_authority_cannot_be_asked_is_named() {
    scene::run(|scene| {
        let directory = scene.directory();
        let identity = Authority::new(directory, "ours")?.vouch("a.test", 4000)?;
        fs::copy(&identity.certificate, directory.join("shop.pem"))?;
        fs::copy(&identity.key, directory.join("shop.key"))?;
        let file = directory.join("checked.toml");
        fs::write(&file, format!("version = 1\n{CONFIG}"))?;
        let path = Path::new(&file).to_str().context("a path")?;
        let checked = verb(&scene.topology().lb, &["check", "--config", path])?;
        let expected = "tls.shop.ocsp: shop.pem: names no responder of OCSP that is asked by http";
        ensure!(checked.code == 1 && checked.stderr.contains(expected), "{checked:?}");
        Ok(())
    });
}
