//! The rules applied to one file: its path and text in, findings out.

use super::{
    lex::{Source, Token},
    paths::{Named, paths},
    rules,
};

/// One broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path from the root.
    pub(crate) path: String,
    /// Counted from 1; 0: the file as a whole.
    pub(crate) line: usize,
    /// The rule, and how it is broken.
    pub(crate) rule: String,
}

/// All findings of a text file. `path` is from the root.
pub(crate) fn file(path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut report = |line: usize, rule: String| found.push(Finding { path: path.to_owned(), line, rule });
    machine_paths(text, &mut report);
    if path.ends_with(".rs") {
        let source = Source::read(text);
        size(text, &mut report);
        unfinished(&source, &mut report);
        unsafe_code(path, text, &source, &mut report);
        let named = paths(&source);
        doors(path, &named, &mut report);
        if let Some(place) = Place::of(path) {
            imports(&place, &named, &mut report);
            absences(&place, &named, &mut report);
        }
    }
    found.sort();
    // One `use` may break a rule several times.
    found.dedup();
    found
}

type Report<'a> = dyn FnMut(usize, String) + 'a;

fn machine_paths(text: &str, report: &mut Report<'_>) {
    for (index, line) in text.lines().enumerate() {
        if let Some(path) = rules::MACHINE_PATHS.iter().find(|path| names_directory(line, path)) {
            report(index + 1, format!("names a directory of one machine: {path}"));
        }
    }
}

/// Whether an absolute path in `line` starts with `directory`; `tests/work/x` and a URL's path do not.
fn names_directory(line: &str, directory: &str) -> bool {
    line.match_indices(directory).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !"._-}/)".contains(before))
    })
}

fn size(text: &str, report: &mut Report<'_>) {
    let lines = text.lines().count();
    if lines > rules::LINES_MAX {
        report(0, format!("{lines} lines, more than {}: which noun is hiding in there?", rules::LINES_MAX));
    }
}

fn unfinished(source: &Source<'_>, report: &mut Report<'_>) {
    for (at, (token, line)) in source.tokens.iter().enumerate() {
        if let Token::Word(word) = token
            && rules::UNFINISHED.contains(word)
            && source.is_mark(at + 1, '!')
            && !source.is_mark(at + 2, '=')
        {
            report(*line, format!("`{word}!` stands for something unfinished"));
        }
    }
    for (index, (comment, line)) in source.comments.iter().enumerate() {
        let mut words = comment.split(|character: char| !character.is_alphanumeric());
        if let Some(mark) = words.find(|word| rules::VAGUE.contains(word)) {
            report(*line, format!("{mark}: write a TODO that names the condition that ends it"));
        }
        if is_todo(comment) {
            // The sentence may go on in the comment lines that follow.
            let block =
                source.comments[index..].iter().zip(*line..).take_while(|((_, on), expected)| on == expected);
            let text: String =
                block.map(|((text, _), _)| format!("{text} ")).collect::<String>().to_lowercase();
            let after = text.split_once("todo").map_or("", |(_, after)| after);
            if !rules::CONDITIONS.iter().any(|condition| after.contains(&format!("{condition} "))) {
                report(
                    *line,
                    format!("TODO without a condition that ends it ({})", rules::CONDITIONS.join(", ")),
                );
            }
        }
    }
}

/// Whether the comment is a TODO, not one that talks of them.
fn is_todo(comment: &str) -> bool {
    let text = comment.trim_start_matches(['/', '*', '!', ' ']);
    text.split(|character: char| !character.is_alphanumeric()).next() == Some("TODO")
        || comment.contains("TODO:")
        || comment.contains("TODO(")
}

fn unsafe_code(path: &str, text: &str, source: &Source<'_>, report: &mut Report<'_>) {
    let lines: Vec<&str> = text.lines().collect();
    let has_door = rules::UNSAFE.iter().any(|door| path.starts_with(door));
    for (at, (token, line)) in source.tokens.iter().enumerate() {
        if *token != Token::Word("unsafe") {
            continue;
        }
        if !has_door {
            report(
                *line,
                "unsafe stands only in ring, sys, steering::maps and the kernel half's ctx".to_owned(),
            );
        }
        let claims = source.is_mark(at + 1, '{') || source.word(at + 1) == Some("impl");
        if claims && !is_justified(&lines, *line) {
            report(*line, "unsafe without a `// SAFETY:` just above".to_owned());
        }
    }
}

/// Whether a comment with `SAFETY:` stands right above the line (from 1), or above the statement it goes on with.
fn is_justified(lines: &[&str], line: usize) -> bool {
    let mut above = lines[..line.saturating_sub(1).min(lines.len())].iter().rev().map(|line| line.trim());
    while let Some(text) = above.next() {
        if text.starts_with("//") {
            let block = std::iter::once(text).chain(above.take_while(|text| text.starts_with("//")));
            return block.into_iter().any(|text| text.contains("SAFETY:"));
        }
        let ends_statement = text.is_empty() || text.ends_with([';', '{', '}', ',']);
        if ends_statement && !text.starts_with("#[") {
            return false;
        }
    }
    false
}

fn doors(path: &str, named: &[Named<'_>], report: &mut Report<'_>) {
    if !path.starts_with("lb/") && !path.starts_with("ebpf/") {
        return;
    }
    for name in named.iter().filter(|name| name.segments.len() > 1) {
        for (door, files) in rules::DOORS {
            if name.segments[0] == *door && !files.iter().any(|file| path.starts_with(file)) {
                report(name.line, format!("`{door}` has its door in {}", files.join(", ")));
            }
        }
    }
}

/// A file of the daemon as a module.
struct Place<'a> {
    /// `worker` of `lb/src/worker/conn.rs`; `main` for `lb/src/main.rs`.
    area: &'a str,
    /// How many modules it lies below the crate's root.
    depth: usize,
    /// A file of tests alone.
    test: bool,
}

impl<'a> Place<'a> {
    /// `None`: no module of the daemon, or its root, which names all.
    fn of(path: &'a str) -> Option<Self> {
        let inner = path.strip_prefix("lb/src/")?.strip_suffix(".rs")?;
        if inner == "lib" {
            return None;
        }
        let module = inner.strip_suffix("/mod").unwrap_or(inner);
        let segments: Vec<&str> = module.split('/').collect();
        let depth = if inner == "main" { 0 } else { segments.len() };
        Some(Self { area: segments[0], depth, test: segments.last() == Some(&"tests") })
    }

    /// The area a path leads to; `None`: it stays inside, or leads to another crate.
    fn target<'n>(&self, name: &Named<'n>) -> Option<&'n str> {
        let ups = name.segments.iter().take_while(|segment| **segment == "super").count();
        let index = match name.segments[0] {
            "crate" => 1,
            "lb" if self.area == "main" => 1,
            "super" if ups >= self.depth + name.depth => ups,
            _ => return None,
        };
        name.segments.get(index).copied()
    }
}

fn imports(place: &Place<'_>, named: &[Named<'_>], report: &mut Report<'_>) {
    let Some((_, allowed)) = rules::AREAS.iter().find(|(area, _)| *area == place.area) else {
        report(0, format!("`{}` is in no row of tidy's table of areas", place.area));
        return;
    };
    for name in named {
        let Some(target) = place.target(name) else { continue };
        let is_area = rules::AREAS.iter().any(|(area, _)| *area == target);
        if is_area && target != place.area && !allowed.contains(&target) {
            report(name.line, format!("`{}` does not import `{target}`", place.area));
        }
    }
}

fn absences(place: &Place<'_>, named: &[Named<'_>], report: &mut Report<'_>) {
    for (areas, absent, why) in rules::ABSENT {
        if place.test || !areas.contains(&place.area) {
            continue;
        }
        for name in named.iter().filter(|name| !name.test) {
            if name.segments.windows(absent.len()).any(|window| window == *absent) {
                report(name.line, format!("`{}` {why}: `{}`", place.area, name.segments.join("::")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_broken(path: &str, text: &str) -> Vec<String> {
        file(path, text).into_iter().map(|finding| format!("{}: {}", finding.line, finding.rule)).collect()
    }

    #[track_caller]
    fn assert_good(path: &str, text: &str) {
        assert_eq!(rules_broken(path, text), [""; 0], "{path}: {text}");
    }

    #[track_caller]
    fn assert_bad(path: &str, text: &str, line: usize, part: &str) {
        let broken = rules_broken(path, text);
        let expected = format!("{line}: ");
        assert!(
            broken.iter().any(|rule| rule.starts_with(&expected) && rule.contains(part)),
            "{path}: {text}: {broken:?}"
        );
    }

    #[test]
    fn arrows_go_down() {
        assert_good(
            "lb/src/worker/conn.rs",
            "use crate::{l7::Exchange, relay, ring::Token, config::Snapshot};",
        );
        assert_good(
            "lb/src/control/run.rs",
            "fn f() { crate::steering::attach(); crate::worker::Handle::start(); }",
        );
        assert_good("lb/src/relay/tcp.rs", "use super::Side; use crate::metrics::Counter;");
        for (path, text, part) in [
            ("lb/src/model/id.rs", "use crate::config::Config;", "`model` does not import `config`"),
            (
                "lb/src/config/valid.rs",
                "\nuse crate::{model::X,\n health::Y};",
                "`config` does not import `health`",
            ),
            ("lb/src/relay/tcp.rs", "fn f() { crate::l7::g() }", "`relay` does not import `l7`"),
            ("lb/src/relay/tcp.rs", "use super::super::l7::G;", "`relay` does not import `l7`"),
            ("lb/src/relay/mod.rs", "use super::balance;", "`relay` does not import `balance`"),
            ("lb/src/steering/sync.rs", "use crate::worker::Handle;", "`steering` does not import `worker`"),
            ("lb/src/worker/conn.rs", "use crate::steering;", "`worker` does not import `steering`"),
            ("lb/src/ring/op.rs", "use crate::control::Run;", "`ring` does not import `control`"),
            ("lb/src/worker/conn.rs", "use crate::admin as a;", "`worker` does not import `admin`"),
            ("lb/src/main.rs", "use lb::worker;", "`main` does not import `worker`"),
        ] {
            let line = text.lines().count();
            assert_bad(path, text, line, part);
        }
    }

    #[test]
    fn super_is_counted_from_where_it_stands() {
        assert_good("lb/src/relay/tcp.rs", "mod t { use super::super::l7; }");
        assert_good("lb/src/relay/mod.rs", "mod tests { use super::*; }");
        assert_bad(
            "lb/src/relay/tcp.rs",
            "mod t { use super::super::super::l7; }",
            1,
            "does not import `l7`",
        );
    }

    #[test]
    fn imports_hold_in_tests_too() {
        assert_bad("lb/src/l7/route.rs", "#[cfg(test)] mod tests { use crate::relay::X; }", 1, "`relay`");
    }

    #[test]
    fn an_unknown_area_is_named() {
        assert_bad("lb/src/util/mod.rs", "", 0, "`util` is in no row");
        assert_good("lb/src/lib.rs", "pub mod worker; pub use crate::worker::Handle;");
    }

    #[test]
    fn each_heavy_dependency_has_its_door() {
        assert_good("lb/src/steering/loader.rs", "use aya::Ebpf;");
        assert_good("lb/src/steering/maps.rs", "use libc::mmap;");
        assert_good("lb/src/cli/mod.rs", "use clap::Parser;");
        assert_good("tests/xdp/rows.rs", "use aya::Ebpf;");
        assert_good("lb/src/worker/conn.rs", "// aya::Ebpf\nconst A: &str = \"use aya::Ebpf;\";");
        for (path, text, part) in [
            ("lb/src/control/run.rs", "use aya::Ebpf;", "`aya`"),
            ("lb/src/worker/conn.rs", "fn f() { io_uring::opcode::Nop::new(); }", "`io_uring`"),
            ("lb/src/worker/conn.rs", "use libc::{c_int};", "`libc`"),
            ("lb/src/steering/sync.rs", "use libc::mmap;", "`libc`"),
            ("lb/src/main.rs", "use clap::Parser;", "`clap`"),
            ("lb/src/worker/conn.rs", "#[derive(clap::Args)] struct A;", "`clap`"),
            ("lb/src/worker/conn.rs", "use ::glommio::spawn_local;", "`glommio`"),
            ("lb/src/l7/http1/parse.rs", "use rustix::io::Errno;", "`rustix`"),
            ("ebpf/src/parse.rs", "use aya_ebpf::cty;", "`aya_ebpf`"),
        ] {
            assert_bad(path, text, 1, part);
        }
    }

    #[test]
    fn sans_io_has_no_clock_no_socket_no_luck() {
        assert_good("lb/src/l7/exchange.rs", "use std::time::{Duration, Instant}; fn f(now: Instant) {}");
        assert_good("lb/src/l7/exchange.rs", "use std::net::{IpAddr, SocketAddr};");
        assert_good("lb/src/worker/conn.rs", "fn f() { std::time::Instant::now(); }");
        assert_good("lb/src/config/file.rs", "use std::fs;");
        assert_good(
            "lb/src/l7/exchange.rs",
            "#[cfg(test)] mod tests { fn f() { std::time::Instant::now(); } }",
        );
        for (path, text, part) in [
            ("lb/src/l7/exchange.rs", "fn f() { Instant::now(); }", "clock"),
            ("lb/src/l7/exchange.rs", "fn f() { std::time::Instant::now(); }", "clock"),
            ("lb/src/health/table.rs", "use std::time::SystemTime;", "clock"),
            ("lb/src/balance/maglev.rs", "use rand::Rng;", "random"),
            ("lb/src/relay/tcp.rs", "use std::{net::{TcpStream}, io};", "socket"),
            ("lb/src/relay/tcp.rs", "use std::os::fd::AsRawFd;", "descriptors"),
            ("lb/src/limits/mod.rs", "use std::thread;", "threads"),
            ("lb/src/keepalive/mod.rs", "use std::fs::File;", "files"),
            ("lb/src/metrics/counter.rs", "fn f() { std::time::Instant::now(); }", "clock"),
            ("lb/src/l7/exchange.rs", "#[cfg(not(test))] fn f() { Instant::now(); }", "clock"),
        ] {
            assert_bad(path, text, 1, part);
        }
    }

    #[test]
    fn unsafe_stays_behind_its_doors() {
        let block = "fn f() {\n    // SAFETY: g has no conditions.\n    unsafe { g() }\n}";
        for path in
            ["lb/src/ring/op.rs", "lb/src/sys/mmap.rs", "lb/src/steering/maps/slots.rs", "ebpf/src/ctx.rs"]
        {
            assert_good(path, block);
        }
        for path in
            ["lb/src/worker/conn.rs", "lb/src/steering/sync.rs", "ebpf/src/parse.rs", "tests/src/netns.rs"]
        {
            assert_bad(path, block, 3, "unsafe stands only");
        }
        assert_good(
            "lb/src/worker/conn.rs",
            "#![deny(unsafe_code)] // unsafe\nconst A: &str = \"unsafe {\";",
        );
    }

    #[test]
    fn unsafe_says_why_it_is_safe() {
        let path = "lb/src/sys/mmap.rs";
        assert_good(path, "// SAFETY: one\n// and more.\n#[inline]\nunsafe impl Send for A {}");
        assert_good(path, "// SAFETY: one.\nlet a =\n    unsafe { g() };");
        assert_good(path, "let a =\n    // SAFETY: one.\n    unsafe { g() };");
        assert_good(path, "unsafe fn g() {}");
        assert_bad(path, "fn f() {\n    unsafe { g() }\n}", 2, "without a `// SAFETY:`");
        assert_bad(path, "// SAFETY: of the other.\nlet a = 1;\nunsafe { g() }", 3, "without a `// SAFETY:`");
        assert_bad(path, "// Calls g.\nunsafe { g() }", 2, "without a `// SAFETY:`");
        assert_bad(path, "// SAFETY: far away.\n\nunsafe { g() }", 3, "without a `// SAFETY:`");
        assert_bad(path, "unsafe impl Send for A {}", 1, "without a `// SAFETY:`");
    }

    #[test]
    fn what_is_unfinished_is_found() {
        assert_good("lb/src/sys/mod.rs", "fn f() { a::todo(); let dbg = 1; if dbg != 2 {} } // todo!()");
        for name in ["todo", "unimplemented", "dbg"] {
            assert_bad("lb/src/sys/mod.rs", &format!("fn f() {{\n{name}!() }}"), 2, name);
        }
    }

    #[test]
    fn a_todo_names_its_end() {
        let todo = ["TO", "DO"].concat();
        assert_good("lb/src/sys/mod.rs", &format!("// {todo}: drop this once 6.1 is gone."));
        assert_good("lb/src/sys/mod.rs", &format!("// Finds every {todo} that says nothing."));
        assert_bad("lb/src/sys/mod.rs", &format!("/// {todo} make it fast"), 1, "without a condition");
        assert_good("lb/src/sys/mod.rs", &format!("// {todo}: drop this\n// when 6.1 is gone."));
        assert_bad("lb/src/sys/mod.rs", &format!("\n// {todo}: make it fast."), 2, "without a condition");
        assert_bad(
            "lb/src/sys/mod.rs",
            &format!("// {todo}: make it fast.\nfn f() {{}}\n// when x"),
            1,
            "without",
        );
        assert_bad("lb/src/sys/mod.rs", &format!("// {}ME", "FIX"), 1, "names the condition");
    }

    #[test]
    fn machine_paths_are_found_in_any_text() {
        let [work, root, ..] = rules::MACHINE_PATHS else { panic!("too few") };
        assert_bad("README.md", &format!("see\n{work}wt"), 2, "directory of one machine");
        assert_bad(".ci/run", &format!("PATH={root}.cargo"), 1, "directory of one machine");
        assert_good("README.md", &format!("tests{work}x and https://example.org{work}x"));
    }

    #[test]
    fn long_files_are_found() {
        assert_good("xtask/src/main.rs", &"\n".repeat(600));
        assert_bad("xtask/src/main.rs", &"\n".repeat(601), 0, "601 lines");
    }
}
