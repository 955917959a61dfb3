//! `[log]`: what is refused, and where.

use super::*;

#[track_caller]
fn refused(lines: &str, expected: &str) {
    let found = problems(&format!("version = 1\n[log]\n{lines}\n"));
    assert_eq!(found, [format!("edge.toml:{expected}")], "{lines}");
}

#[test]
fn mistakes_are_named() {
    refused(
        "access = \"jsno\"",
        "3:10: log.access = \"jsno\": must be one of \"off\", \"json\", \"text\"; did you mean `json`?",
    );
    refused(
        "access = true",
        "3:10: log.access = true: must be one of \"off\", \"json\", \"text\"; this is a boolean",
    );
    refused("acess = \"json\"", "3:1: log.acess: unknown key; did you mean `access`?");
    refused(
        "access = \"json\"\nformat = \"$client\"",
        "4:10: log.format = \"$client\": a format is for access = \"text\"; with \"json\" use include",
    );
    refused(
        "access = \"text\"\ninclude = [\"query\"]",
        "4:11: log.include = [\"query\"]: is for access = \"json\"; with \"text\" name it in the format",
    );
    refused(
        "access = \"text\"\nformat = \"$remote_adr\"",
        "4:10: log.format = \"$remote_adr\": has no variable $remote_adr; did you mean `$remote_addr`?",
    );
    refused(
        "access = \"json\"\ninclude = [\"cookie\"]",
        "4:12: log.include[0] = \"cookie\": must be one of \"query\", \"user_agent\", \"referer\"",
    );
    refused(
        "access = \"json\"\nfile = \"logs/access.log\"",
        "4:8: log.file = \"logs/access.log\": must be \"stdout\", \"syslog\", \"syslog:ADDRESS:PORT\" or an absolute path",
    );
    for file in ["/var/lib/lb/generations/1.whole", "/var/lib/x/../lb/audit.log"] {
        refused(
            &format!("access = \"json\"\nfile = {file:?}"),
            &format!(
                "4:8: log.file = {file:?}: must lie outside the state directory, where all is lb's own, and say so without \"..\""
            ),
        );
    }
    refused(
        "access = \"json\"\nfile = \"syslog:loghost:514\"",
        "4:8: log.file = \"syslog:loghost:514\": syslog is sent to an address with a port, as in \"syslog:192.0.2.1:514\"",
    );
    refused(
        "access = \"json\"\nsample = \"200%\"",
        "4:10: log.sample = \"200%\": must be a share from \"0.0001%\" to \"100%\", such as \"1%\"",
    );
}

#[test]
fn nothing_is_logged_unless_asked_for() {
    for text in ["version = 1", "version = 1\n[log]\n", "version = 1\n[log]\naccess = \"off\"\nfile = \"/x\""]
    {
        assert_eq!(parse("edge.toml", text).unwrap().config.access_log, None, "{text}");
    }
    let log = parse("edge.toml", "version = 1\n[log]\naccess = \"json\"").unwrap().config.access_log.unwrap();
    assert_eq!(log.include(), LogInclude::default(), "no query, no user agent, no referer");
    assert_eq!((log.target, log.sample_ppm), (LogTarget::Stdout, SAMPLE_ALL));
    let log = parse("edge.toml", "version = 1\n[log]\naccess = \"text\"").unwrap().config.access_log.unwrap();
    assert_eq!(log.include(), LogInclude::default());
    let text = "version = 1\n[log]\naccess = \"text\"\nformat = \"combined\"";
    let include = parse("edge.toml", text).unwrap().config.access_log.unwrap().include();
    assert_eq!(include, LogInclude { query: false, user_agent: true, referer: true });
}

#[test]
fn a_log_is_read_as_written() {
    let text = "version = 1\n[log]\naccess = \"json\"\nfile = \"/var/log/lb/access.log\"\nsample = \"1%\"\n\
                include = [\"user_agent\"]";
    let log = parse("edge.toml", text).unwrap().config.access_log.unwrap();
    assert_eq!(log.target, LogTarget::File("/var/log/lb/access.log".into()));
    assert_eq!(log.sample_ppm, 10_000);
    assert_eq!(log.include(), LogInclude { user_agent: true, ..LogInclude::default() });
}
