//! Exit codes and error lists of the command line.

use std::fs;

use anyhow::ensure;
use lb_tests::{daemon::verb, scene};

/// Five mistakes of five kinds, each with what its message must name.
const WRONG: &str = r#"version = 1
xdp.interfaces = ["eth0"]

[listener.web]
bind = ["127.0.0.1:99999"]
protocol = "http"
pool = "web"

[route.api]
listener = "web"
pth = "/v1/*"
pool = "nowhere"

[pool.web]
backends = ["127.0.0.1:9001"]
health = { tcp = "auto", every = "2 parsecs" }

[vip.dns]
address = ["192.0.2.53"]
ports = ["53/udp"]
forward = "nta"
pool = "dns"

[pool.dns]
backends = ["10.0.0.53"]
"#;

/// A name that nobody answers for.
const NAMED: &str = r#"version = 1
[dns]
servers = ["127.0.0.1:9"]
[listener.l]
bind = ["127.0.0.1:8080"]
protocol = "http"
pool = "p"
[pool.p]
backends = ["a.internal:80"]
"#;

/// Line of each mistake, and a word its message must hold.
const MISTAKES: [(usize, &str); 5] = [(5, "bind"), (11, "path"), (12, "nowhere"), (16, "every"), (21, "nat")];

#[test]
fn five_mistakes_are_five_messages() {
    scene::run(|scene| {
        let file = scene.directory().join("wrong.toml");
        fs::write(&file, WRONG)?;
        let file = file.display().to_string();
        let output = verb(&scene.topology().lb, &["check", "--config", &file])?;
        ensure!(output.code == 1, "{output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        let begin = format!("{file}:");
        let is_number = |text: Option<&str>| text.is_some_and(|text| text.parse::<u32>().is_ok());
        let mut messages = said.lines().filter_map(|line| line.strip_prefix(&begin)).filter(|rest| {
            let mut parts = rest.split(':');
            is_number(parts.next()) && is_number(parts.next())
        });
        ensure!(messages.clone().count() == MISTAKES.len(), "{said}");
        for (line, word) in MISTAKES {
            let found = messages.find(|text| text.starts_with(&format!("{line}:")));
            ensure!(found.is_some_and(|text| text.contains(word)), "line {line}, {word:?}:\n{said}");
        }
        Ok(())
    });
}

#[test]
fn exit_codes_tell_good_refused_and_misused() {
    scene::run(|scene| {
        let host = &scene.topology().lb;
        let file = scene.directory().join("good.toml");
        fs::write(&file, "version = 1\n[pool.a]\nbackends = [\"127.0.0.1:1\"]\n")?;
        let good = verb(host, &["check", "--config", &file.display().to_string()])?;
        ensure!(good.code == 0, "{good:?}");
        let named = scene.directory().join("named.toml");
        fs::write(&named, NAMED)?;
        let resolved = verb(host, &["check", "--resolve", "--config", &named.display().to_string()])?;
        ensure!(resolved.code == 0 && resolved.stderr.contains("a.internal:80"), "{resolved:?}");
        let absent = verb(host, &["check", "--config", "/nonexistent/lb.toml"])?;
        ensure!(absent.code == 1 && absent.stderr.contains("/nonexistent/lb.toml"), "{absent:?}");
        for misuse in [&["check", "--confg", "x"][..], &["show", "everything"], &["frobnicate"]] {
            let output = verb(host, misuse)?;
            ensure!(output.code == 2, "{misuse:?}: {output:?}");
        }
        Ok(())
    });
}
