//! Broken, hostile and arbitrary files; names promised for later; bounds over all.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{
    super::{schema::*, *},
    EXAMPLE, problems,
};

/// Every name of the design is read or refused by name, and a slip in it is told from it.
#[test]
fn every_name_is_read_or_not_supported_yet() {
    let named = [
        ("vip", "dns", &VIP),
        ("listener", "web", &LISTENER),
        ("route", "api-v1", &ROUTE),
        ("pool", "db", &POOL),
    ];
    let mut tables = vec![
        ("runtime".to_owned(), &RUNTIME),
        ("xdp".to_owned(), &XDP),
        ("admin".to_owned(), &ADMIN),
        ("limits".to_owned(), &LIMITS),
        ("state".to_owned(), &STATE),
        ("health".to_owned(), &PROGRAMS),
        ("tls.example".to_owned(), &TLS),
        ("pool.api.health".to_owned(), &HEALTH),
        ("pool.api.keepalive".to_owned(), &KEEPALIVE),
        ("pool.api.breaker".to_owned(), &BREAKER),
    ];
    tables.extend(named.map(|(table, name, keys)| (format!("{table}.{name}"), keys)));
    tables.extend(LATER_TABLES.iter().map(|(name, keys)| ((*name).to_owned(), keys)));
    for (table, keys) in tables {
        for key in keys.later {
            let text = format!("version = 1\n[{table}]\n{key} = 1");
            let expected = format!("edge.toml:3:1: {table}.{key}: not supported yet");
            assert!(problems(&text).contains(&expected), "{table}.{key}: {:?}", problems(&text));
        }
        for key in keys.names().filter(|key| key.len() > 3) {
            let text = format!("version = 1\n[{table}]\n{key}q = 1");
            let expected = format!("edge.toml:3:1: {table}.{key}q: unknown key; did you mean `{key}`?");
            assert!(problems(&text).contains(&expected), "{table}.{key}q: {:?}", problems(&text));
        }
        for key in keys.supported_names() {
            let text = format!("version = 1\n[{table}]\n{key} = 1");
            let refusals = ["not supported yet", "unknown key"].map(|why| format!("{table}.{key}: {why}"));
            for problem in problems(&text) {
                assert!(!refusals.iter().any(|refusal| problem.contains(refusal)), "{problem}");
            }
        }
    }
}

/// The names of the design, written out once more: none may fall out of the schema unnoticed.
#[test]
fn the_schema_holds_every_name_of_the_design() {
    let has = |keys: &crate::config::file::shape::Keys, names: &str| {
        for name in names.split(' ') {
            assert!(keys.names().any(|known| known == name), "{name}");
        }
    };
    has(&TOP, "version runtime xdp admin limits vip listener tls route pool node state log upgrade health");
    has(&RUNTIME, "workers");
    has(&XDP, "interfaces deny allow outer_source spread secret");
    has(&INTERFACE, "name mode gateway");
    has(&ADMIN, "socket http");
    has(
        &LIMITS,
        "connections connections_per_ip head_timeout head_bytes head_fields idle_timeout body_bytes memory rate h2",
    );
    has(&STATE, "dir");
    has(&PROGRAMS, "programs_dir");
    has(&LOG, "access format file sample include");
    has(&VIP, "address ports forward pool hash flows nat_source quic sources on_down");
    has(&LISTENER, "bind protocol tls proxy_protocol trusted_proxies h2c steer syn_cookies pool forwarded");
    has(&TLS, "certificate key profile client_auth default ocsp names tickets");
    has(
        &ROUTE,
        "listener host path pool timeout retry priority method headers redirect respond rewrite set_headers rate_limit",
    );
    has(
        &POOL,
        "balance backends health keepalive proxy_protocol sticky outlier breaker slow_start backup tls weight",
    );
    has(&BACKEND, "address weight");
    has(
        &HEALTH,
        "http udp tcp redis postgres mysql https tls grpc grpcs exec port every recheck jitter timeout fall rise",
    );
    has(&KEEPALIVE, "idle per_worker");
    has(&BREAKER, "retries");
    has(&UPGRADE, "drain_timeout max_draining");
    has(&LATER_TABLES.iter().find(|(name, _)| *name == "node").unwrap().1, "row announce");
    for word in ["least-connections", "p2c", "peak-ewma", "random"] {
        assert!(BALANCES.supported.iter().any(|(known, _)| *known == word), "{word}");
    }
}

#[test]
fn empty_later_tables_are_refused_too() {
    assert_eq!(problems("version = 1\n[node]\n"), ["edge.toml:2:1: node: not supported yet"]);
}

#[test]
fn nothing_implicit() {
    assert_eq!(
        problems(""),
        ["edge.toml:1:1: version: missing: every config says which schema it is written in: version = 1"]
    );
    assert_eq!(
        problems("version = 1\nlimits = 3\nvip = []"),
        [
            "edge.toml:2:10: limits = 3: must be a table; this is an integer",
            "edge.toml:3:7: vip = []: must be a table; this is an array",
        ]
    );
    assert_eq!(
        problems("version = 1\n[[pool]]\nbackends = []")[0],
        "edge.toml:2:1: pool = [[pool]]: must be a table; this is an array"
    );
}

/// A syntax error is said with its place, once, and so is what is wrong elsewhere; nothing is called missing,
/// as it may stand in what could not be read.
#[test]
fn syntax_errors_hide_nothing_and_invent_nothing() {
    let text = EXAMPLE
        .replace("[pool.db]", "[pool.db")
        .replace("\"60s\"", "\"60\"")
        .replace("timeout = \"30s\"", "timeout = = 3");
    let found = problems(&text);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found[0].starts_with("edge.toml:25:16: limits.idle_timeout = \"60\": a duration needs a unit"),
        "{found:#?}"
    );
    assert!(found[1].starts_with("edge.toml:52:11: syntax error: "), "{found:#?}");
    assert!(found[2].starts_with("edge.toml:60:9: syntax error: "), "{found:#?}");
    let found = problems("version = 1\nlimits.x = \"\n");
    assert!(found.len() == 1 && found[0].starts_with("edge.toml:2:"), "{found:#?}");
}

#[test]
fn duplicate_keys_are_errors() {
    let text = EXAMPLE.replace("head_fields = 100", "head_fields = 100\nhead_bytes = \"1KiB\"");
    assert_eq!(problems(&text), ["edge.toml:25:1: head_bytes: duplicate key"]);
    let text = EXAMPLE.replace("[pool.db]", "[pool.api]\n[pool.db]");
    assert_eq!(problems(&text), ["edge.toml:60:7: api: duplicate key"]);
    let text = EXAMPLE.replace("fall = 5,", "fall = 5, fall = 6,");
    assert_eq!(problems(&text), ["edge.toml:57:69: fall: duplicate key"]);
}

#[test]
fn deep_input_is_refused_on_a_small_stack() {
    for text in [
        "[".repeat(1 << 20),
        "x = ".to_owned() + &"[".repeat(1 << 20),
        "x = ".to_owned() + &"{ a = ".repeat(1 << 18),
        "a.".repeat(1 << 20) + "a = 1",
        "[".to_owned() + &"a.".repeat(1 << 20) + "a]",
        "x = ".to_owned() + &"{ a.a.a.a.a.a.a.a.a = ".repeat(79) + "1" + &"}".repeat(79),
    ] {
        let parse = move || parse("f", &text).is_err();
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(parse).unwrap();
        assert!(thread.join().unwrap());
    }
}

#[test]
fn messages_hold_no_control_characters() {
    let found = problems("version = 1\n\"\\u001b[31m\" = 1\n\"\" = 2\n[log]\nformat = \"\u{7f}\"");
    assert!(found.len() >= 3 && !found.iter().any(|line| line.chars().any(char::is_control)), "{found:?}");
}

#[test]
fn bounds_over_all_tables() {
    let mut text = String::from("version = 1\n[xdp]\ninterfaces = [\"eth0\"]\n");
    for n in 0..65 {
        let _ = writeln!(
            text,
            "[vip.v{n}]\naddress = [\"192.0.2.{n}\"]\nports = [\"80/tcp\"]\nforward = \"ipip\"\npool = \"p{n}\""
        );
        let _ = writeln!(text, "[pool.p{n}]\nbackends = [");
        for host in 1..=64 {
            let _ = writeln!(text, "  \"10.0.{n}.{host}\",");
        }
        text.push_str("]\n");
    }
    assert_eq!(
        problems(&text),
        [
            "edge.toml:4:1: vip: 65 pools behind VIPs; 64 is the most",
            "edge.toml:9:1: pool: 4160 backends; 4095 is the most",
        ]
    );
    let ports: Vec<_> = (1..=4096).map(|port| format!("\"{port}/tcp\"")).collect();
    let text = EXAMPLE
        .replace("[\"53/udp\", \"53/tcp\"]", &format!("[{}]", ports.join(",")))
        .replace("10.0.1.54:53", "10.0.1.54");
    assert_eq!(
        problems(&text),
        [
            "edge.toml:28:1: vip: 8194 keys of address, port and protocol over all VIPs (and one per address for ICMP, two more for fragments); 4096 is the most"
        ]
    );
}

#[test]
fn reports_are_bounded() {
    let mut text = String::from("version = 1\n");
    for n in 0..1500 {
        let _ = writeln!(text, "unknown{n} = 1");
    }
    let problems = parse("f", &text).unwrap_err();
    assert_eq!((problems.len(), problems.omitted), (1000, 500));
}

#[test]
fn files_are_named_when_they_cannot_be_read() {
    let dir = std::env::temp_dir().join(format!("lb-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let say = |path: &Path| load(path).unwrap_err().to_string();
    let missing = dir.join("missing.toml");
    assert!(say(&missing).starts_with(&format!("{}: cannot be read: No such file", missing.display())));
    assert!(say(&dir).contains("cannot be read: Is a directory"), "{}", say(&dir));
    let path = write("bytes.toml", b"version = 1\n# \xff");
    assert_eq!(
        say(&path),
        format!("{}:2:3: is not UTF-8: the first bad byte is at offset 14", path.display())
    );
    let path = write("large.toml", &vec![b'#'; FILE_BYTES_MAX + 1]);
    assert_eq!(say(&path), format!("{}: is larger than 16 MiB", path.display()));
    let loaded = load(&write("good.toml", EXAMPLE.as_bytes())).unwrap();
    assert_eq!((loaded.directory.as_path(), loaded.digest), (dir.as_path(), Digest::of(EXAMPLE.as_bytes())));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Two parses say the same; an error always has a reason.
fn check(text: &str) -> Result<(), TestCaseError> {
    let (one, two) = (parse("f", text), parse("f", text));
    match (one, two) {
        (Ok(one), Ok(two)) => prop_assert_eq!((one.config, one.warnings), (two.config, two.warnings)),
        (Err(one), Err(two)) => {
            prop_assert!(!one.is_empty());
            prop_assert!(!one.iter().any(|problem| problem.message.contains("a bug")), "{}", one);
            prop_assert_eq!(one, two);
        }
        _ => prop_assert!(false, "one parse of two was refused"),
    }
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn pieces_of_toml_never_panic(pieces in prop::collection::vec(prop::sample::select(vec![
        "version", "=", "1", "\n", ".", "[", "]", "[[", "]]", "{", "}", ",", "\"", "'", "\"\"\"", "vip", "pool", "a", "b", "listener", "route",
        "[vip.a]\n", "[pool.a]\n", "[[pool.a]]\n", "[pool]\n", "[pool.a.health]\n", "pool.a.backends = [\"10.0.0.1:80\"]\n", "a.b = 1\n",
        "address = [\"192.0.2.1\"]\n", "xdp = {}\n", "health = { tcp = 1 }\n", "#", "1979-05-27", "inf", "0x", "\\u", "\u{feff}", "\r", "ß",
    ]), 0..40)) {
        check(&pieces.concat())?;
    }

    /// Whatever is torn out of the example or put into it.
    #[test]
    fn torn_examples_never_panic(from in 0..EXAMPLE.len(), len in 0..200_usize, put in "[\\[\\]{}=.,\"'a-z0-9\n ]{0,8}") {
        let to = (from + len).min(EXAMPLE.len());
        check(&format!("{}{put}{}", &EXAMPLE[..from], &EXAMPLE[to..]))?;
    }
}
