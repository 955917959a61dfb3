//! `lb diff`: what a config file would change of what runs.

use std::path::Path;

use serde_json::{Value, json};

use super::{args::Diff, pretty, print, render, socket};
use crate::{
    admin,
    config::{self, Config, Difference},
};

/// Asks for the running config, reads the file, and prints what differs.
pub(super) fn run(diff: &Diff) -> Result<(), String> {
    let differences = differences(&diff.file, &socket(&diff.asking))?;
    print(match diff.asking.json {
        true => pretty(&json!({ "differences": differences })),
        false => lines(&differences),
    });
    Ok(())
}

fn differences(file: &Path, socket: &Path) -> Result<Vec<Difference>, String> {
    let loaded =
        config::load(file).map_err(|problems| format!("{} is invalid\n{problems}", file.display()))?;
    let running = running(&admin::get(socket, "/v1/show/config")?)?;
    Ok(config::differences(&running, &loaded.config))
}

fn running(answer: &Value) -> Result<Config, String> {
    let read = config::read_json("the running config", &answer["config"]);
    read.map(|loaded| loaded.config)
        .map_err(|problems| format!("this lb cannot read the config of the one that runs\n{problems}"))
}

/// A line for each, or one that there is none.
fn lines(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "no difference\n".to_owned();
    }
    differences.iter().map(|difference| line(difference) + "\n").collect()
}

fn line(Difference { key, before, after }: &Difference) -> String {
    let told = render::clipped;
    match (before, after) {
        (Some(before), Some(after)) => format!("~ {key}: {} -> {}", told(before), told(after)),
        (None, Some(after)) => format!("+ {key}: {}", told(after)),
        (Some(before), None) => format!("- {key}: {}", told(before)),
        (None, None) => format!("~ {key}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::UnixListener,
        thread,
    };

    use super::*;

    fn config(text: &str) -> Config {
        config::parse("f", &format!("version = 1\n{text}")).unwrap().config
    }

    #[test]
    fn a_line_for_each_key() {
        let before =
            config("[pool.a]\nbackends = [\"10.0.0.1:80\"]\n[pool.b]\nbackends = [\"10.0.0.2:80\"]\n");
        let after = config(
            "[pool.a]\nbackends = [{ address = \"10.0.0.1:80\", weight = 3 }]\nmax_connections = 5\n[limits]\nconnections = 7\n",
        );
        let running = running(&json!({ "config": before.to_json() })).unwrap();
        assert_eq!(
            lines(&config::differences(&running, &after)),
            "~ limits.connections: 200000 -> 7\n\
             ~ pool.a.backends: [{\"address\":\"10.0.0.1:80\",\"weight\":1}] -> [{\"address\":\"10.0.0.1:80\",\"weight\":3}]\n\
             + pool.a.max_connections: 5\n\
             - pool.b: {\"backends\":[{\"address\":\"10.0.0.2:80\",\"weight\":1}],\"keepalive\":{\"idle\":\"1m\",\"per_worker\":1024}}\n"
        );
        assert_eq!(lines(&[]), "no difference\n");
    }

    #[test]
    fn the_daemon_is_asked() {
        let directory = std::env::temp_dir().join(format!("lb-diff-{}", std::process::id()));
        _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let (socket, file) = (directory.join("s"), directory.join("lb.toml"));
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let head: Vec<String> = BufReader::new(&stream)
                .lines()
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty())
                .collect();
            assert_eq!(head[0], "GET /v1/show/config HTTP/1.1");
            let body = json!({ "config": config("").to_json() }).to_string();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        fs::write(&file, "version = 1\n[limits]\nhead_fields = 7\n").unwrap();
        let found = differences(&file, &socket);
        daemon.join().unwrap();
        assert_eq!(lines(&found.unwrap()), "~ limits.head_fields: 100 -> 7\n");
        fs::write(&file, "version = 1\n[limit]\n").unwrap();
        let error = differences(&file, &socket).unwrap_err();
        assert!(error.contains("lb.toml is invalid") && error.contains("limit: unknown key"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_no_config_is_said() {
        let error = running(&json!({ "config": { "version": 2 } })).unwrap_err();
        assert!(
            error.contains("the running config: version = 2: this build reads version 1 only"),
            "{error}"
        );
        assert!(running(&json!({})).is_err());
    }
}
