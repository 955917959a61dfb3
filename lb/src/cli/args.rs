//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};

use crate::{admin::What, control::quic_id};

/// A load balancer for bare-metal edge machines: XDP for packets, io_uring for connections.
#[derive(Debug, Parser)]
#[command(name = "lb", version, after_help = "Exit codes: 0 done, 1 refused or invalid, 2 usage.")]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run in the foreground; without a config, the quickstart: two demo backends behind http://127.0.0.1:8080.
    Run(Run),
    /// Check a config; says everything that is wrong with it.
    Check(Check),
    /// Show what a config would change of what runs, key by key; changes nothing.
    Diff(Diff),
    /// Print the JSON Schema of configs.
    Schema,
    /// Show the running daemon on one page.
    Status(Asking),
    /// Show one list of the running daemon.
    Show(Show),
    /// Show what happens now, in rates, until Ctrl-C.
    Top(Top),
    /// Say what would become of a packet, and why; asked of the running programs and tables, without a trace there.
    Why(Why),
    /// Capture packets as they come in, each with what became of it, as pcapng.
    Capture(Capture),
    /// Make a config file the config of the running daemon; says everything that is wrong with it.
    Apply(Apply),
    /// Make the config of an earlier generation the config again (lb show generations).
    Rollback(Rollback),
    /// Give a backend nothing new, whatever the config says; what it has goes on.
    Drain(OfBackend),
    /// Take back a drain: a backend gets what the config and its health say.
    Undrain(OfBackend),
    /// Have another process take over from the running daemon, of a new program; connections go on with the old one.
    Upgrade(Upgrade),
    /// Give a backend another share of what is new than the config says.
    Weight(Weight),
    /// Remove lb's programs and pins: L4 forwarding stops.
    Detach(Detach),
    /// On a backend without tunnel devices: take outer headers off, until interrupted.
    Decap(Decap),
    /// Make or read a QUIC connection id that names a server (lb/docs/quic-ids.md).
    QuicId(QuicId),
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The config.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) bpf: Bpf,
    /// Where generations, lineage and the generated secret are kept, instead of the config's state.dir.
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Where the admin socket is made (as admin.sock), instead of the config's admin.socket.
    #[arg(long, value_name = "DIR")]
    pub(super) run_dir: Option<PathBuf>,
    /// Of lb upgrade's own: the process at standard input is to be taken over from.
    #[arg(long, hide = true)]
    pub(super) take_over: bool,
    #[command(flatten)]
    pub(super) log: Log,
}

#[derive(Debug, Args)]
pub(super) struct Log {
    /// Level, such as info, or per target, such as warn,lb::worker=debug.
    #[arg(long, value_name = "LEVEL", env = "LB_LOG", default_value = "info")]
    pub(super) log: String,
    /// Format of the log; human on a terminal unless said, json otherwise.
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Bpf {
    /// Where programs and maps are pinned; on a bpf filesystem.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/lb")]
    pub(super) bpf_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The config.
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Look names of backends up, once, and warn of those that stand for nothing.
    #[arg(long)]
    pub(super) resolve: bool,
    /// Say it in JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The config.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) asking: Asking,
}

#[derive(Debug, Args)]
pub(super) struct Asking {
    /// Give the API's JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// The daemon's admin socket.
    #[arg(long, value_name = "SOCKET")]
    pub(super) admin: Option<PathBuf>,
}

/// Of every verb that changes something.
#[derive(Debug, Args)]
pub(super) struct Changing {
    /// Do everything but the change itself.
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) asking: Asking,
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The config.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Only if the config that runs has this ETag (lb status --json).
    #[arg(long, value_name = "ETAG", value_parser = entity_tag)]
    pub(super) if_match: Option<String>,
    #[command(flatten)]
    pub(super) changing: Changing,
}

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Number of the generation.
    #[arg(value_name = "N")]
    pub(super) generation: u64,
    #[command(flatten)]
    pub(super) changing: Changing,
}

#[derive(Debug, Args)]
pub(super) struct Upgrade {
    /// The program; the one that runs unless said, as it lies there now. Root's, and nobody else's to change.
    #[arg(value_name = "BINARY")]
    pub(super) binary: Option<PathBuf>,
    /// Only where that is another program than runs; else apply the daemon's own config file anew.
    #[arg(long)]
    pub(super) if_changed: bool,
    #[command(flatten)]
    pub(super) changing: Changing,
}

#[derive(Debug, Args)]
pub(super) struct OfBackend {
    /// The backend, by its address in the config.
    #[arg(value_name = "POOL/BACKEND", value_parser = backend)]
    pub(super) backend: (String, String),
    #[command(flatten)]
    pub(super) changing: Changing,
}

#[derive(Debug, Args)]
pub(super) struct Weight {
    #[command(flatten)]
    pub(super) of: OfBackend,
    /// Its weight, 1 to 1000; config: what the config says.
    #[arg(value_name = "N|config", value_parser = share)]
    pub(super) weight: Share,
}

/// A backend's share of what is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Config,
    Of(u16),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Which list.
    #[arg(value_parser = PossibleValuesParser::new(What::ALL.map(|(name, _)| name)))]
    pub(super) what: String,
    #[command(flatten)]
    pub(super) asking: Asking,
}

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Seconds between two readings.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    pub(super) every: u32,
    /// End after so many pages.
    #[arg(short, long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// The daemon's admin socket.
    #[arg(long, value_name = "SOCKET")]
    pub(super) admin: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = WHY_HELP)]
pub(super) struct Why {
    /// The packet, such as "tcp 198.51.100.7:1234 -> 192.0.2.53:53"; or the request, such as "http://example.com/path".
    #[arg(value_name = "FLOW|REQUEST")]
    pub(super) flow: String,
    #[command(flatten)]
    pub(super) asking: Asking,
}

const WHY_HELP: &str = "FLOW is PROTOCOL SOURCE -> DESTINATION [OPTION]...
  PROTOCOL     tcp, udp, or icmp for an echo request
  SOURCE       198.51.100.7:1234 or [2001:db8::7]:1234; for icmp an address alone
  flags=       of tcp: fin, syn, rst, psh, ack, urg, ece, cwr with commas between, or none; ack unless said
  interface=   where it comes in; the first that XDP is on unless said
  ttl=         time to live or hop limit; 64 unless said
  length=      bytes of the IP packet; its headers alone unless said

REQUEST is [METHOD] http[s]://HOST[:PORT]/PATH [OPTION]..., or tls://NAME[:PORT] for a TLS client that is passed on
  header:NAME= a header, as often as wanted; \"header:NAME=a value\" with spaces
  from=        the client's address; nobody that is trusted unless said
  listener=    who takes it; by port unless said
  sni=         of https, the name that the handshake asks for; the host unless said";

#[derive(Debug, Args)]
#[command(after_help = CAPTURE_HELP)]
pub(super) struct Capture {
    /// Where the packets go; - is standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(super) write: PathBuf,
    /// Only packets of this vip.
    #[arg(long, value_name = "NAME")]
    pub(super) vip: Option<String>,
    /// Only packets that this backend was chosen for, as pool/backend.
    #[arg(long, value_name = "POOL/BACKEND")]
    pub(super) backend: Option<String>,
    /// Only packets counted under these reasons, with commas between; see lb show drops.
    #[arg(long, value_name = "REASONS")]
    pub(super) reason: Option<String>,
    /// Only packets that were forwarded, answered, dropped or passed, with commas between.
    #[arg(long, value_name = "OUTCOMES")]
    pub(super) outcome: Option<String>,
    /// Only packets from this address or prefix.
    #[arg(long, value_name = "PREFIX")]
    pub(super) source: Option<String>,
    /// Only packets to this address or prefix.
    #[arg(long, value_name = "PREFIX")]
    pub(super) destination: Option<String>,
    /// Only packets of this protocol: tcp, udp, icmp, icmpv6 or a number.
    #[arg(long, value_name = "PROTOCOL")]
    pub(super) protocol: Option<String>,
    /// Only packets that came in by this interface.
    #[arg(long, value_name = "IF")]
    pub(super) interface: Option<String>,
    /// Look at 1 packet in N.
    #[arg(long, value_name = "N")]
    pub(super) sample: Option<u32>,
    /// Bytes of each frame, at most; 128 unless said.
    #[arg(long, value_name = "BYTES")]
    pub(super) snap: Option<u32>,
    /// Not only headers. What people send may be in it.
    #[arg(long)]
    pub(super) payload: bool,
    /// End after so many packets.
    #[arg(short, long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// End after so many seconds.
    #[arg(short, long, value_name = "SECONDS")]
    pub(super) duration: Option<u32>,
    /// Bytes per second that are captured, at most; 8000000 unless said.
    #[arg(long, value_name = "BYTES")]
    pub(super) rate: Option<u32>,
    /// The daemon's admin socket.
    #[arg(long, value_name = "SOCKET")]
    pub(super) admin: Option<PathBuf>,
}

const CAPTURE_HELP: &str = "Only what XDP sees is captured, as it came in. Every packet has a comment that says what became of it
(Wireshark: frame.comment) and the verdict of XDP (frame.verdict.ebpf_xdp). It ends with its count or duration, or
with Ctrl-C, and says how many packets were lost because they were too many.";

#[derive(Debug, Args)]
pub(super) struct Detach {
    /// Leave nothing; a plain detach already removes programs, maps, counters and flows.
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) bpf: Bpf,
}

#[derive(Debug, Args)]
pub(super) struct Decap {
    /// Where encapsulated packets come in.
    #[arg(long, value_name = "IF")]
    pub(super) interface: String,
    #[command(flatten)]
    pub(super) log: Log,
}

#[derive(Debug, Args)]
pub(super) struct QuicId {
    /// The key of the check bits: 16 bytes, or 32 hexadecimal digits.
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    /// Say what this id says, instead of making one.
    #[arg(long, value_name = "ID", conflicts_with_all = ["server", "first", "nonce"])]
    pub(super) read: Option<String>,
    /// The server that it names.
    #[arg(long, value_name = "NUMBER", required_unless_present = "read")]
    pub(super) server: Option<u16>,
    /// Octet 0 in hexadecimal: the config id in its upper three bits.
    #[arg(long, value_name = "HEX", default_value = "0b", value_parser = octets::<1>)]
    pub(super) first: [u8; 1],
    /// The nonce in hexadecimal; random unless given.
    #[arg(long, value_name = "HEX", value_parser = octets::<5>)]
    pub(super) nonce: Option<[u8; 5]>,
}

/// The first slash ends the pool; there may be more in the path of a unix socket.
fn backend(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(pool, backend)| !pool.is_empty() && !backend.is_empty());
    let (pool, backend) = parts.ok_or("must be a pool and a backend, such as api/10.0.0.11:8080")?;
    Ok((pool.to_owned(), backend.to_owned()))
}

fn share(text: &str) -> Result<Share, String> {
    if text == "config" {
        return Ok(Share::Config);
    }
    let weight = text.parse().ok().filter(|weight| (1..=1000).contains(weight));
    weight.map(Share::Of).ok_or_else(|| "must be 1 to 1000, or config".to_owned())
}

/// Quotes may be left out.
fn entity_tag(text: &str) -> Result<String, String> {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    match inner.is_empty() || inner.bytes().any(|byte| byte <= b' ' || byte == b'"' || byte == 0x7f) {
        true => Err("must be an ETag, such as 5d0c2f6f3ea1b9d4, or *".to_owned()),
        false if inner == "*" => Ok(inner.to_owned()),
        false => Ok(format!("\"{inner}\"")),
    }
}

fn octets<const N: usize>(text: &str) -> Result<[u8; N], String> {
    quic_id::bytes(text).ok_or_else(|| format!("must be {} hexadecimal digits", 2 * N))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_needs_nothing() {
        let cli = Cli::try_parse_from(["lb", "run"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("{cli:?}") };
        assert_eq!((run.config, run.bpf.bpf_dir), (None, PathBuf::from("/sys/fs/bpf/lb")));
    }

    #[test]
    fn what_is_not_there_is_a_usage_error() {
        for words in [
            &["lb"][..],
            &["lb", "show"],
            &["lb", "show", "flow"],
            &["lb", "check"],
            &["lb", "diff"],
            &["lb", "runn"],
            &["lb", "run", "--nope"],
            &["lb", "run", "x"],
            &["lb", "apply"],
            &["lb", "apply", "lb.toml", "--if-match", "a b"],
            &["lb", "apply", "lb.toml", "--if-match", "a\r\nb: c"],
            &["lb", "rollback", "x"],
            &["lb", "rollback", "-1"],
            &["lb", "drain", "api"],
            &["lb", "drain", "/10.0.0.1:80"],
            &["lb", "undrain", "api/"],
            &["lb", "weight", "api/10.0.0.1:80"],
            &["lb", "weight", "api/10.0.0.1:80", "0"],
            &["lb", "weight", "api/10.0.0.1:80", "1001"],
            &["lb", "quic-id", "--key", "x"],
            &["lb", "quic-id", "--server", "7"],
            &["lb", "quic-id", "--key", "x", "--server", "7", "--read", "00"],
            &["lb", "quic-id", "--key", "x", "--server", "7", "--nonce", "00"],
            &["lb", "quic-id", "--key", "x", "--server", "65536"],
        ] {
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{words:?}");
        }
        let help = Cli::try_parse_from(["lb", "--help"]).unwrap_err();
        assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
    }
}
