//! The API's JSON as plain text, aligned for a terminal.

use std::fmt::Write;

use serde_json::Value;

use crate::model::QuestionError;

/// Rows under a line of column names; numbers stand to the right. Ends with a newline.
pub(super) fn table(columns: &[&str], rows: &[Value]) -> String {
    let header: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|column| cell(&row[*column])).collect()).collect();
    let width = |at: usize| {
        let lines = cells.iter().chain([&header]);
        lines.map(|line| line[at].chars().count()).max().unwrap_or(0)
    };
    let shape: Vec<(usize, bool)> =
        (0..columns.len()).map(|at| (width(at), are_numbers(rows, columns[at]))).collect();
    let mut text = String::new();
    for line in [&header].into_iter().chain(&cells) {
        let mut written = String::new();
        for (cell, (width, is_number)) in line.iter().zip(&shape) {
            _ = match is_number {
                true => write!(written, "{cell:>width$}  "),
                false => write!(written, "{cell:<width$}  "),
            };
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

/// Numbers only, save for cells without a value.
fn are_numbers(rows: &[Value], column: &str) -> bool {
    let mut values = rows.iter().map(|row| &row[column]).filter(|value| !value.is_null()).peekable();
    values.peek().is_some() && values.all(Value::is_number)
}

/// One value on one line; what is absent is a dash. Control characters are escaped: names come from elsewhere.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().flat_map(printable).collect(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) if fields.is_empty() => "-".to_owned(),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                format!("{} {}", cell(&Value::String(key.clone())), cell(value))
            };
            fields.iter().map(field).collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    }
}

/// Longest value on a line, in characters.
const VALUE_CHARS_MAX: usize = 240;

/// A value as JSON on one line, a long one cut off.
pub(super) fn clipped(value: &Value) -> String {
    let text = value.to_string();
    let cut = text.char_indices().nth(VALUE_CHARS_MAX).map(|(end, _)| format!("{}...", &text[..end]));
    cut.unwrap_or(text).chars().flat_map(printable).collect()
}

fn printable(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

/// `GET /v1/why`: the end first, then how it came to that.
pub(super) fn why(answer: &Value) -> String {
    let mut text = format!("{}\n{}\n", cell(&answer["question"]), cell(&answer["text"]));
    for step in array(&answer["steps"]) {
        _ = writeln!(text, "  {:<10}{}", cell(&step["step"]), cell(&step["text"]));
    }
    text
}

/// What is wrong with a text, under the place where it is.
pub(super) fn pointed(text: &str, wrong: &QuestionError) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let (indent, mark) = (" ".repeat(wrong.column - 1), "^".repeat(wrong.width));
    format!("what is asked cannot be read\n  {line}\n  {indent}{mark} {}", wrong.message)
}

/// `GET /v1/status` on one page.
pub(super) fn status(status: &Value) -> String {
    let mut text = String::new();
    if !status["degraded"].is_null() {
        _ = writeln!(text, "{:<10}{}", "DEGRADED", cell(&status["degraded"]));
    }
    let config = match &status["config"]["path"] {
        Value::Null => "quickstart".to_owned(),
        path => cell(path),
    };
    let lines = [
        ("lb", format!("{} (pid {}), {}", cell(&status["version"]), status["pid"], cell(&status["state"]))),
        (
            "config",
            format!(
                "{config}, generation {}, digest {}",
                status["generation"],
                cell(&status["config"]["digest"])
            ),
        ),
        ("up for", duration(status["uptime_seconds"].as_u64().unwrap_or(0))),
        ("workers", workers(&status["workers"])),
        ("limits", limits(&status["limits"])),
        ("backends", backends(&status["backends"])),
    ];
    for (name, value) in lines {
        _ = writeln!(text, "{name:<10}{value}");
    }
    if let Some(is_on) = status["kernel_tls"]["on"].as_bool() {
        let why = cell(&status["kernel_tls"]["why"]);
        _ = writeln!(text, "{:<10}{}", "kTLS", if is_on { "yes".to_owned() } else { format!("no: {why}") });
    }
    if !status["drift"].is_null() {
        _ = writeln!(text, "{:<10}{}", "drift", cell(&status["drift"]));
    }
    for worker in array(&status["workers"]).iter().filter(|worker| worker["stuck_seconds"].as_u64() > Some(0))
    {
        let (id, core, seconds) = (&worker["worker"], &worker["core"], &worker["stuck_seconds"]);
        _ = writeln!(text, "{:<10}worker {id} on core {core} has not turned for {seconds} s", "STUCK");
    }
    for leaving in array(&status["draining"]) {
        let connections = leaving["connections"].as_u64();
        let connections = connections.map_or_else(String::new, |open| format!(", {open} connections"));
        let left = leaving["seconds_left"].as_u64();
        let left = left.map_or_else(String::new, |left| format!(", {} left", duration(left)));
        let since = duration(leaving["seconds"].as_u64().unwrap_or(0));
        let pid = &leaving["pid"];
        _ = writeln!(text, "{:<10}pid {pid} for {since}{connections}{left}", "draining");
    }
    for said in array(&status["overrides"]) {
        let drained = if said["drained"] == true { " drained" } else { "" };
        let weight = said["weight"].as_u64().map(|weight| format!(" weight {weight}")).unwrap_or_default();
        _ = writeln!(
            text,
            "{:<10}{}/{}{drained}{weight}",
            "override",
            cell(&said["pool"]),
            cell(&said["backend"])
        );
    }
    for listener in array(&status["listeners"]) {
        let steer = match &listener["steer"] {
            Value::Null => "kernel's hash".to_owned(),
            steer => format!("lb_steer by {}", cell(steer)),
        };
        let (name, protocol, bind) =
            (cell(&listener["listener"]), cell(&listener["protocol"]), cell(&listener["bind"]));
        let cookies = if listener["syn_cookies"] == "xdp" { ", SYN cookies by XDP" } else { "" };
        _ = writeln!(text, "{:<10}{name} {protocol} {bind}, worker chosen by {steer}{cookies}", "listener");
    }
    xdp(&mut text, &status["xdp"]);
    for warning in array(&status["warnings"]) {
        _ = writeln!(text, "{:<10}{}", "warning", cell(warning));
    }
    text
}

fn workers(workers: &Value) -> String {
    let workers = array(workers);
    let (leaving, serving): (Vec<_>, Vec<_>) = workers.iter().partition(|worker| worker["leaves"] == true);
    let cores: Vec<String> = serving.iter().map(|worker| worker["core"].to_string()).collect();
    let open: u64 = workers.iter().filter_map(|worker| worker["open_connections"].as_u64()).sum();
    let leaving = match leaving.len() {
        0 => String::new(),
        1 => ", 1 that leaves".to_owned(),
        more => format!(", {more} that leave"),
    };
    format!("{} on cores {}{leaving}, {open} open connections", serving.len(), cores.join(","))
}

fn limits(limits: &Value) -> String {
    format!("{} connections, {} open files", limits["connections"], limits["open_files"])
}

fn backends(backends: &Value) -> String {
    let mut text = format!("{} up, {} down", backends["up"], backends["down"]);
    if !array(&backends["down_names"]).is_empty() {
        _ = write!(text, ": {}", cell(&backends["down_names"]).replace(',', ", "));
    }
    for down in array(&backends["down_reasons"]) {
        if let (Some(seconds), false) = (down["since_seconds"].as_u64(), down["reason"].is_null()) {
            let (name, reason) = (cell(&down["backend"]), cell(&down["reason"]));
            let state = cell(&down["state"]);
            _ = write!(text, "\n{state:<10}{name} for {}: {reason}", duration(seconds));
        }
    }
    for pool in array(&backends["panic"]) {
        _ = write!(text, "\npanic     pool {}: all backends are used, whatever they are", cell(pool));
    }
    text
}

fn xdp(text: &mut String, xdp: &Value) {
    for interface in array(&xdp["interfaces"]) {
        let adopted = if interface["adopted"] == true { ", adopted from an earlier run" } else { "" };
        let (name, mode) = (cell(&interface["interface"]), cell(&interface["mode"]));
        _ = writeln!(text, "{:<10}{name} {mode}{adopted}", "xdp");
    }
    for table in array(&xdp["tables"]) {
        let (pool, digest) = (cell(&table["pool"]), cell(&table["digest"]));
        _ = writeln!(
            text,
            "{:<10}{pool} digest {digest}, {} slots open, {} closed",
            "table", table["open"], table["closed"]
        );
        for change in array(&table["moves"]) {
            let since =
                change["since_seconds"].as_u64().map_or(String::new(), |s| format!(", {} ago", duration(s)));
            _ = writeln!(
                text,
                "{:<10}{pool}: {}{since}: {} open, {} closed",
                "moving",
                cell(&change["why"]),
                change["open"],
                change["closed"]
            );
        }
    }
    if xdp["spread"]["on"] == true {
        _ = writeln!(
            text,
            "{:<10}listeners' packets over the workers' cores: {}",
            "spread",
            cell(&xdp["spread"]["why"])
        );
    }
    let cookies = &xdp["syn_cookies"];
    if !cookies.is_null() {
        let [sent, accepted, refused] = ["sent", "accepted", "refused"].map(|count| &cookies[count]);
        _ = writeln!(
            text,
            "{:<10}{sent} sent by XDP; the kernel accepted {accepted} and refused {refused}, its own among them",
            "cookies"
        );
    }
    if !xdp["slots"].is_null() {
        let slots = &xdp["slots"];
        _ = writeln!(text, "{:<10}{} open, {} closed", "slots", slots["open"], slots["closed"]);
    }
}

pub(super) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            json!({ "pool": "api", "up": 2, "bind": ["a", "b"] }),
            json!({ "pool": "a\u{1b}[2J", "up": 1234, "bind": null }),
        ];
        assert_eq!(
            table(&["pool", "up", "bind"], &rows),
            "POOL          UP  BIND\napi            2  a,b\na\\u{1b}[2J  1234  -\n"
        );
        assert_eq!(table(&["pool", "up"], &[]), "POOL  UP\n");
        let row = json!({ "by": { "eth0": 3, "eth1": 0 }, "none": {} });
        assert_eq!(table(&["by", "none"], &[row]), "BY              NONE\neth0 3, eth1 0  -\n");
    }

    #[test]
    fn status_tells_who_leaves_from_who_serves() {
        let mut view = crate::admin::fixture::view();
        view.workers[1].has_left = true;
        let page = |view| super::status(&crate::admin::status::render(view, None));
        let line = "workers   1 on cores 0, 0 open connections\n";
        assert!(page(&view).contains(line), "{}", page(&view));
        view.workers[1].metrics.listeners[0].open.add(3);
        let line = "workers   1 on cores 0, 1 that leaves, 3 open connections\n";
        assert!(page(&view).contains(line), "{}", page(&view));
    }

    #[test]
    fn status_says_what_is_lost() {
        let view = crate::admin::fixture::view();
        let mut packets = crate::admin::fixture::packets();
        packets.cookies = Some(crate::admin::Cookies { accepted: 5, refused: 2 });
        packets.spread = Some(crate::admin::Spread { on: true, why: "xdp.spread says so".to_owned() });
        let page = super::status(&crate::admin::status::render(&view, Some(&packets)));
        for line in [
            "config    lb.toml, generation 1, digest 00ff\n",
            "workers   2 on cores 0,1, 0 open connections\n",
            "limits    200000 connections, 20512 open files\n",
            "backends  3 up, 0 down\n",
            "kTLS      no: no module\n",
            "listener  web http 127.0.0.1:8080, worker chosen by lb_steer by hash, SYN cookies by XDP\n",
            "spread    listeners' packets over the workers' cores: xdp.spread says so\n",
            "cookies   0 sent by XDP; the kernel accepted 5 and refused 2, its own among them\n",
            "slots     40 open, 2 closed\n",
            "table     dns digest 00000000deadbeef, 40 slots open, 2 closed\n",
            "moving    dns: changed before this process started: 0 open, 2 closed\n",
            "moving    dns: backend 10.0.0.3 removed by generation 7, 1 min 1 s ago: 40 open, 0 closed\n",
            "warning   no CAP_BPF: lb_steer is not attached\n",
        ] {
            assert!(page.contains(line), "{line}{page}");
        }
    }

    #[test]
    fn status_begins_with_what_is_wrong() {
        let mut view = crate::admin::fixture::view();
        view.degraded = Some("lb.toml:3:1: unknown key; generation 1 runs".to_owned());
        view.drift = Some("lb.toml is not what runs".to_owned());
        view.overrides = [crate::admin::fixture::drained()].into();
        let page = super::status(&crate::admin::status::render(&view, None));
        assert!(page.starts_with("DEGRADED  lb.toml:3:1: unknown key; generation 1 runs\nlb "), "{page}");
        assert!(page.contains("(pid ") && page.contains(", degraded\n"), "{page}");
        assert!(page.contains("\ndrift     lb.toml is not what runs\n"), "{page}");
        assert!(page.contains("\noverride  app/127.0.0.1:9002 drained weight 3\n"), "{page}");
    }

    #[test]
    fn durations_keep_two_units() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(61), "1 min 1 s");
        assert_eq!(duration(3 * 3600 + 61), "3 h 1 min");
        assert_eq!(duration(49 * 3600), "2 d 1 h");
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        let text = "tcp 1.1.1.1:1 -> 2.2.2.2:2 flags=syn,ak";
        let wrong = text.parse::<crate::model::Question>().unwrap_err();
        let shown = pointed(text, &wrong);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1], format!("  {text}"));
        assert_eq!(lines[2].find('^'), lines[1].find("ak"));
        assert!(lines[2].contains("^^ \"ak\" is no TCP flag"), "{shown}");
    }

    #[test]
    fn an_answer_begins_with_its_end() {
        let answer = json!({
            "question": "udp a -> b", "text": "dropped: x: y",
            "steps": [{ "step": "vip", "text": "vip dns" }],
        });
        assert_eq!(super::why(&answer), "udp a -> b\ndropped: x: y\n  vip       vip dns\n");
    }
}
