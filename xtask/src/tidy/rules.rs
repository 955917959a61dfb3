//! The tables: who may import whom, and who has which door. Paths are from the root, with `/`.

/// Parts of the daemon (`lb/src/NAME`) and what else of it each may name. Arrows go down; in the sans-io row
/// siblings do not know each other; `steering` and `worker` never meet.
pub(crate) const AREAS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("config", &["model"]),
    ("metrics", &["model"]),
    ("balance", LOW),
    ("health", LOW),
    ("keepalive", LOW),
    ("l7", LOW),
    ("limits", LOW),
    ("names", LOW),
    ("log", LOW),
    ("relay", LOW),
    ("tls", LOW),
    ("sys", LOW),
    ("ring", &["config", "metrics", "model", "sys"]),
    ("steering", &["balance", "config", "metrics", "model", "sys"]),
    (
        "worker",
        &[
            "balance",
            "config",
            "health",
            "keepalive",
            "l7",
            "limits",
            "log",
            "metrics",
            "model",
            "relay",
            "ring",
            "sys",
            "tls",
        ],
    ),
    ("generations", &["config", "model"]),
    ("control", HIGH),
    ("admin", HIGH),
    ("upgrade", HIGH),
    ("cli", &["admin", "config", "control", "metrics", "model", "sys", "upgrade"]),
    // The binary itself.
    ("main", &["cli"]),
];

const LOW: &[&str] = &["config", "metrics", "model"];
const HIGH: &[&str] = &[
    "admin",
    "balance",
    "config",
    "control",
    "generations",
    "health",
    "keepalive",
    "l7",
    "limits",
    "log",
    "metrics",
    "model",
    "names",
    "relay",
    "steering",
    "sys",
    "tls",
    "upgrade",
    "worker",
];

/// Heavy dependencies of `lb` and `ebpf`, and the files that may name each, by how their paths start.
/// `tests`, `bench` and `xtask` are outside: they stand before every door.
pub(crate) const DOORS: &[(&str, &[&str])] = &[
    ("aya", &["lb/src/steering/", "ebpf/abi/src/pod.rs"]),
    (
        "aya_ebpf",
        &["ebpf/src/main.rs", "ebpf/src/bench.rs", "ebpf/src/ctx", "ebpf/src/maps", "ebpf/src/watch.rs"],
    ),
    ("aya_obj", &["lb/src/steering/"]),
    ("clap", &["lb/src/cli/"]),
    ("glommio", &["lb/src/control/", "lb/src/admin/", "lb/src/upgrade/"]),
    ("h2", &["lb/src/worker/tests/h2_peers.rs", "lb/src/control/probe_grpc.rs"]),
    ("hickory_proto", &["lb/src/names/"]),
    // admin: the client of our own socket reads response heads.
    ("httparse", &["lb/src/admin/", "lb/src/l7/"]),
    ("io_uring", &["lb/src/ring/"]),
    ("lb_http2", &["lb/src/l7/http2/"]),
    ("libc", &["lb/src/sys/", "lb/src/ring/", "lb/src/steering/maps"]),
    (
        "rustix",
        &[
            "lb/src/sys/",
            "lb/src/ring/",
            "lb/src/steering/",
            "lb/src/worker/",
            "lb/src/control/",
            "lb/src/admin/",
            "lb/src/upgrade/",
        ],
    ),
    ("rustls", &["lb/src/tls/"]),
    ("rustls_native_certs", &["lb/src/tls/"]),
    ("x509_parser", &["lb/src/tls/"]),
    // Its traits alone, which h2 asks for.
    ("tokio", &["lb/src/worker/tests/h2_peers.rs", "lb/src/control/probe_grpc.rs"]),
];

/// Where `unsafe` may stand, by how paths start.
pub(crate) const UNSAFE: &[&str] = &[
    "lb/src/ring/",
    "lb/src/sys/",
    "lb/src/steering/maps",
    "ebpf/src/ctx",
    "ebpf/src/main.rs",
    "ebpf/src/bench.rs",
    "ebpf/src/watch.rs",
    "ebpf/abi/src/pod.rs",
    "tests/src/counting.rs",
    "tests/src/xdp/namespace.rs",
    "tests/src/xdp/tap.rs",
];

/// What a rule of [`ABSENT`] holds for.
pub(crate) const PURE: &[&str] = &[
    "balance",
    "config",
    "health",
    "keepalive",
    "l7",
    "limits",
    "log",
    "metrics",
    "model",
    "names",
    "relay",
];
/// The part of [`PURE`] that holds no file descriptor either; `config` reads files.
pub(crate) const SANS_IO: &[&str] =
    &["balance", "health", "keepalive", "l7", "limits", "log", "names", "relay"];

/// Parts of paths that these areas never name outside of tests, and what to do instead.
pub(crate) const ABSENT: &[(&[&str], &[&str], &str)] = &[
    (PURE, &["Instant", "now"], "reads a clock; take `now: Instant`"),
    (PURE, &["SystemTime"], "reads a clock; take `now: Instant`"),
    (PURE, &["rand"], "draws random numbers; take a seed"),
    (PURE, &["fastrand"], "draws random numbers; take a seed"),
    (PURE, &["getrandom"], "draws random numbers; take a seed"),
    (PURE, &["std", "thread"], "knows threads"),
    (PURE, &["thread", "spawn"], "knows threads"),
    (PURE, &["TcpStream"], "holds a socket"),
    (PURE, &["TcpListener"], "holds a socket"),
    (PURE, &["UdpSocket"], "holds a socket"),
    (PURE, &["UnixStream"], "holds a socket"),
    (PURE, &["socket2"], "holds a socket"),
    (SANS_IO, &["std", "os"], "knows file descriptors"),
    (SANS_IO, &["OwnedFd"], "knows file descriptors"),
    (SANS_IO, &["RawFd"], "knows file descriptors"),
    (SANS_IO, &["BorrowedFd"], "knows file descriptors"),
    (SANS_IO, &["std", "fs"], "reads files"),
];

/// Longest source file, in lines.
pub(crate) const LINES_MAX: usize = 600;

/// Macros that stand for something unfinished.
pub(crate) const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

/// Marks in comments that say "later" without saying when; a TODO has to say it.
pub(crate) const VAGUE: &[&str] = &["FIXME", "XXX", "HACK"];

/// Words by which a TODO names the condition that ends it.
pub(crate) const CONDITIONS: &[&str] = &["when", "once", "until", "after", "as soon as"];

/// What may lie in the root directory besides dot files.
pub(crate) const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "bench",
    "clippy.toml",
    "deny.toml",
    "ebpf",
    "http2",
    "lb",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "target",
    "tests",
    "typos.toml",
    "xtask",
];

/// Directories of one machine; written in two so that this file passes.
pub(crate) const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
