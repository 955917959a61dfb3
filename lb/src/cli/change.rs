//! Verbs that change the running daemon: what they ask for, and how the answer reads.

use std::{fmt::Write as _, path::Path};

use serde_json::{Value, json};

use super::{
    args::{Apply, Changing, OfBackend, Rollback, Share, Upgrade, Weight},
    pretty, print, render, socket,
};
use crate::{
    admin::{ChangeRequest, Refused, encode, request_change},
    config::{self, Problems},
};

/// `lb apply`: looks at the file itself first, as `lb check` does.
pub(super) fn apply(wanted: &Apply) -> Result<(), String> {
    let checked = config::read_text(&wanted.file)
        .and_then(|text| config::parse(&wanted.file.display().to_string(), &text).map(|_| text));
    let text = match checked {
        Ok(text) => text,
        Err(problems) => return Err(invalid(&wanted.file, &problems, wanted.changing.asking.json)),
    };
    let request = of_file(wanted, &text)?;
    send(&wanted.changing, request)
}

fn of_file<'t>(wanted: &Apply, text: &'t str) -> Result<ChangeRequest<'t>, String> {
    let shown = wanted.file.display();
    let path = std::path::absolute(&wanted.file).map_err(|error| format!("{shown}: {error}"))?;
    let path = path.to_str().ok_or_else(|| format!("{shown}: its path is not UTF-8"))?;
    Ok(ChangeRequest {
        method: "POST",
        target: format!("/v1/apply?path={}", encode(path)),
        by: "apply",
        content: Some(("application/toml", text.as_bytes())),
        if_match: wanted.if_match.clone(),
    })
}

fn invalid(file: &Path, problems: &Problems, is_json: bool) -> String {
    let message = format!("{}: invalid, nothing was sent", file.display());
    if is_json {
        print(pretty(&json!({
            "error": { "code": "invalid", "message": message, "where": file },
            "problems": problems.problems,
            "omitted": problems.omitted,
        })));
    } else {
        eprintln!("{problems}");
    }
    message
}

/// `lb rollback`.
pub(super) fn rollback(wanted: &Rollback) -> Result<(), String> {
    send(&wanted.changing, post(format!("/v1/rollback/{}", wanted.generation), "rollback"))
}

/// `lb upgrade`.
pub(super) fn upgrade(wanted: &Upgrade) -> Result<(), String> {
    // Said only where it is meant: an older daemon does not know it.
    let mut query: Vec<String> = wanted.if_changed.then(|| "if_changed=1".to_owned()).into_iter().collect();
    if let Some(binary) = &wanted.binary {
        let shown = binary.display();
        let path = std::path::absolute(binary).map_err(|error| format!("{shown}: {error}"))?;
        let path = path.to_str().ok_or_else(|| format!("{shown}: its path is not UTF-8"))?;
        query.push(format!("binary={}", encode(path)));
    }
    let mark = if query.is_empty() { "" } else { "?" };
    send(&wanted.changing, post(format!("/v1/upgrade{mark}{}", query.join("&")), "upgrade"))
}

/// `lb drain` and `lb undrain`.
pub(super) fn drain(wanted: &OfBackend, by: &'static str) -> Result<(), String> {
    send(&wanted.changing, of_backend(wanted, by))
}

fn of_backend(wanted: &OfBackend, by: &'static str) -> ChangeRequest<'static> {
    let (pool, backend) = &wanted.backend;
    post(format!("/v1/backends/{}/{}/{by}", encode(pool), encode(backend)), by)
}

/// `lb weight`.
pub(super) fn weight(wanted: &Weight) -> Result<(), String> {
    let said = match wanted.weight {
        Share::Config => json!({ "weight": null }),
        Share::Of(weight) => json!({ "weight": weight }),
    };
    let body = said.to_string();
    let content = Some(("application/json", body.as_bytes()));
    send(&wanted.of.changing, ChangeRequest { content, ..of_backend(&wanted.of, "weight") })
}

fn post(target: String, by: &'static str) -> ChangeRequest<'static> {
    ChangeRequest { method: "POST", target, by, ..ChangeRequest::default() }
}

fn send(changing: &Changing, mut request: ChangeRequest<'_>) -> Result<(), String> {
    if changing.dry_run {
        request.target += if request.target.contains('?') { "&dry_run=1" } else { "?dry_run=1" };
    }
    match request_change(&socket(&changing.asking), &request) {
        Ok(document) if changing.asking.json => print(pretty(&document)),
        Ok(document) => print(made(&document)),
        Err(Refused { message, document: Some(document) }) => {
            match changing.asking.json {
                true => print(pretty(&document)),
                false => eprint!("{}", problems(&document)),
            }
            return Err(message);
        }
        Err(Refused { message, document: None }) => return Err(message),
    }
    Ok(())
}

/// `generation 7: 3 changes in 4.2 ms (2 workers, maps)`, and what changed.
fn made(applied: &Value) -> String {
    let changed = render::array(&applied["changed"]);
    let count = match changed.len() {
        0 => "no changes".to_owned(),
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    let took = applied["took_ms"].as_f64().unwrap_or_default();
    let generation = &applied["generation"];
    let upgraded = &applied["upgraded"];
    let mut text = match applied["dry_run"] == true {
        _ if upgraded.is_object() => format!(
            "process {} (lb {}) has taken over in {took:.1} ms; the old one drains\n",
            upgraded["pid"],
            render::cell(&upgraded["version"]),
        ),
        true => format!(
            "dry run, generation {generation} stays: {count} would be made, looked at in {took:.1} ms\n"
        ),
        false => {
            format!(
                "generation {generation}: {count} in {took:.1} ms{}\n",
                acknowledged(&applied["acknowledged"])
            )
        }
    };
    for key in changed {
        _ = writeln!(text, "  {}", render::cell(key));
    }
    for warning in render::array(&applied["warnings"]) {
        _ = writeln!(text, "{:<10}{}", "warning", render::cell(warning));
    }
    text
}

fn acknowledged(by: &Value) -> String {
    let workers = match by["workers"].as_u64().unwrap_or_default() {
        0 => None,
        1 => Some("1 worker".to_owned()),
        count => Some(format!("{count} workers")),
    };
    let maps = by["maps"].as_u64().filter(|maps| *maps > 0).map(|_| "maps".to_owned());
    let said: Vec<String> = workers.into_iter().chain(maps).collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) }
}

/// What the daemon found wrong with a config, one line each, as `lb check` has them.
fn problems(document: &Value) -> String {
    let mut text = String::new();
    for problem in render::array(&document["problems"]) {
        let part = |key: &str| problem[key].as_str().map(|_| render::cell(&problem[key]));
        _ = write!(text, "{}:", part("file").unwrap_or_default());
        if let (Some(line), Some(column)) = (problem["line"].as_u64(), problem["column"].as_u64()) {
            _ = write!(text, "{line}:{column}:");
        }
        if problem["severity"] == "warning" {
            text.push_str(" warning:");
        }
        if let Some(key) = part("key").filter(|key| !key.is_empty()) {
            let value = part("value").map(|value| format!(" = {value}")).unwrap_or_default();
            _ = write!(text, " {key}{value}:");
        }
        _ = write!(text, " {}", part("message").unwrap_or_default());
        if let Some(suggestion) = part("suggestion") {
            _ = write!(text, "; did you mean `{suggestion}`?");
        }
        text.push('\n');
    }
    match document["omitted"].as_u64() {
        Some(omitted) if omitted > 0 => _ = writeln!(text, "... and {omitted} more"),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser;

    use super::*;
    use crate::{
        admin::{
            changes::{Edit, Override, Refusal, When, Wish},
            fixture::{self, TemporaryDirectory},
            tests::{Running, start},
        },
        cli::args::{Cli, Command},
        model::Generation,
    };

    fn controlled(name: &str) -> (Running, flume::Receiver<Wish>) {
        let (view, wishes) = fixture::controlled(|wish| match wish.edit {
            Edit::Rollback(Generation(9)) => {
                let (at, message) = ("generation 9".to_owned(), "generation 9 is not kept".to_owned());
                Err(Refusal::NotFound { at, message })
            }
            _ => Ok(fixture::applied(wish)),
        });
        (start(name, view), wishes)
    }

    /// As from a shell.
    fn run(running: &Running, words: &[&str]) -> Result<(), String> {
        let socket = running.socket.to_str().unwrap();
        let words = [&["lb"], words, &["--admin", socket]].concat();
        match Cli::try_parse_from(words).unwrap().command {
            Command::Apply(wanted) => apply(&wanted),
            Command::Rollback(wanted) => rollback(&wanted),
            Command::Drain(wanted) => drain(&wanted, "drain"),
            Command::Undrain(wanted) => drain(&wanted, "undrain"),
            Command::Weight(wanted) => weight(&wanted),
            Command::Upgrade(wanted) => upgrade(&wanted),
            command => panic!("{command:?}"),
        }
    }

    #[test]
    fn verbs_come_to_control_as_they_are_meant() {
        let (running, wishes) = controlled("cli-verbs");
        let over = |address: &str, change| Edit::Override {
            pool: "api".to_owned(),
            address: address.to_owned(),
            change,
        };
        let to = |program: &str, when| Edit::Upgrade(Some(PathBuf::from(program)), when);
        for (words, by, edit) in [
            (&["rollback", "3"][..], "rollback", Edit::Rollback(Generation(3))),
            (&["drain", "api/10.0.0.1:80"], "drain", over("10.0.0.1:80", Override::Drain)),
            (&["undrain", "api/[2001:db8::1]:80"], "undrain", over("[2001:db8::1]:80", Override::Undrain)),
            (&["drain", "api/unix:/run/a b.sock"], "drain", over("unix:/run/a b.sock", Override::Drain)),
            (&["weight", "api/10.0.0.1:80", "7"], "weight", over("10.0.0.1:80", Override::Weight(Some(7)))),
            (&["weight", "api/10.0.0.1:80", "config"], "weight", over("10.0.0.1:80", Override::Weight(None))),
            (&["upgrade"], "upgrade", Edit::Upgrade(None, When::Always)),
            (&["upgrade", "--if-changed", "/a b"], "upgrade", to("/a b", When::ProgramDiffers)),
        ] {
            run(&running, words).unwrap();
            let wish = wishes.recv().unwrap();
            assert_eq!((wish.edit, wish.by.by, wish.is_dry), (edit, by.into(), false), "{words:?}");
            run(&running, &[words, &["--dry-run", "--json"]].concat()).unwrap();
            assert!(wishes.recv().unwrap().is_dry, "{words:?}");
        }
        assert_eq!(run(&running, &["rollback", "9"]).unwrap_err(), "generation 9 is not kept");
    }

    #[test]
    fn a_file_is_looked_at_before_it_is_sent() {
        let (running, wishes) = controlled("cli-apply");
        let directory = TemporaryDirectory::new("cli-files");
        std::fs::create_dir_all(&*directory).unwrap();
        let file = directory.join("a b&c.toml");
        let words = ["apply", file.to_str().unwrap(), "--if-match", "e1"];
        std::fs::write(&file, "version = 2\n").unwrap();
        assert!(run(&running, &words).unwrap_err().contains("nothing was sent"));
        assert!(run(&running, &["apply", "/nonexistent.toml", "--json"]).is_err());
        assert!(wishes.is_empty());
        let text = "version = 1\nlistener.web = { bind = [\"127.0.0.1:80\"], protocol = \"http\", pool = \"a\" }\n\
            pool.a.backends = [\"127.0.0.1:81\"]\n";
        std::fs::write(&file, text).unwrap();
        run(&running, &words).unwrap();
        let wish = wishes.recv().unwrap();
        assert_eq!(wish.edit, Edit::File { path: PathBuf::from(&file), text: text.to_owned() });
        assert_eq!(wish.if_match.unwrap()[0].to_string(), "\"e1\"", "quotes may be left out");
    }

    #[test]
    fn nobody_there_is_said_and_ends_with_1() {
        let cli = Cli::try_parse_from(["lb", "drain", "a/b", "--admin", "/nonexistent/lb.sock"]).unwrap();
        let Command::Drain(wanted) = cli.command else { panic!() };
        let said = drain(&wanted, "drain").unwrap_err();
        assert!(said.contains("/nonexistent/lb.sock") && said.contains("is it running"), "{said}");
    }

    #[test]
    fn what_was_made_reads_as_a_sentence() {
        let mut applied = json!({
            "generation": 7, "took_ms": 4.249, "acknowledged": { "workers": 2, "maps": 1 },
            "changed": ["pool.api.backends", "route.a", "vip.\u{1b}x"], "warnings": ["w"], "dry_run": false,
        });
        let expected = "generation 7: 3 changes in 4.2 ms (2 workers, maps)\n  pool.api.backends\n  route.a\n  \
            vip.\\u{1b}x\nwarning   w\n";
        assert_eq!(made(&applied), expected);
        applied["changed"] = json!([]);
        applied["warnings"] = json!([]);
        applied["acknowledged"] = json!({ "workers": 1, "maps": 0 });
        assert_eq!(made(&applied), "generation 7: no changes in 4.2 ms (1 worker)\n");
        applied["acknowledged"] = json!({ "workers": 0, "maps": 0 });
        applied["dry_run"] = json!(true);
        let expected = "dry run, generation 7 stays: no changes would be made, looked at in 4.2 ms\n";
        assert_eq!(made(&applied), expected);
    }

    /// The daemon's problems read as our own do.
    #[test]
    fn problems_read_as_those_of_check() {
        for text in [
            "version = 1\n[pool.a]\nbackend = [\"x\"]\n",
            "",
            "version = \"1\"\n[vip.d]\nforward = \"ip\u{7}ip\"\n",
        ] {
            let found = config::parse("/etc/lb/lb.toml", text).unwrap_err();
            let document = json!({ "problems": found.problems, "omitted": found.omitted });
            assert_eq!(problems(&document).trim_end(), found.to_string());
        }
    }
}
