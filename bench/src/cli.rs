//! Arguments, and the run of one scenario or of all.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};

use crate::{
    budget::{self, Depth},
    context::Context,
    interrupt::{check_interrupted, interrupt},
    machine::Machine,
    measure::{background_percent, raise_open_files},
    named::Named,
    netns,
    peers::{SUBJECTS, Subject},
    report::{self, Found, Report},
    sample::Samples,
    scenario::{self, Scenario},
    system::is_alive,
    topology::Wiring,
};

/// Measures lb beside nginx, HAProxy, Envoy, Pingora and Caddy. As root: it makes network namespaces.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// `list`, `report` (all scenarios), a scenario, or `agree` with two report files.
    what: String,
    /// For `agree`: two files that `report` or `--json` wrote.
    #[arg(value_name = "REPORT")]
    reports: Vec<PathBuf>,
    /// Only these, by name, as in `lb,nginx,nginx-defaults`.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Rounds instead of those in the budget.
    #[arg(long)]
    rounds: Option<usize>,
    /// Also writes the report as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// One short round per scenario: under a minute each.
    #[arg(long)]
    quick: bool,
    /// The least that runs at all, for CI; times mean nothing.
    #[arg(long, conflicts_with = "quick")]
    tiny: bool,
    /// How client, subject and backend are connected.
    #[arg(long, value_enum, default_value_t = Over::Veth)]
    over: Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Over {
    Veth,
    Loopback,
}

/// Does what the command line says.
///
/// # Errors
/// It cannot, or a scenario that was asked for failed.
pub(crate) fn run() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.what == "list" {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.what == "agree" {
        let [one, two] = &arguments.reports[..] else { bail!("`agree` takes two report files") };
        print!("{}", report::agree(one, two)?);
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(arguments.reports.is_empty(), "only `agree` takes report files");
    let chosen: Vec<&'static dyn Scenario> = match arguments.what.as_str() {
        "report" => scenario::ALL.to_vec(),
        name => vec![scenario::find(name).with_context(|| format!("no scenario `{name}`; see `list`"))?],
    };
    ensure!(rustix::process::geteuid().is_root(), "network namespaces take root");
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        watch(signal)?;
    }
    raise_open_files()?;
    netns::sweep();
    all(&arguments, &chosen)
}

fn list() {
    for scenario in scenario::ALL {
        println!("{:12}  {}", scenario.name(), scenario.description());
    }
    println!("\nsubjects, where installed:");
    for subject in SUBJECTS {
        let version = subject.peer.version().unwrap_or_else(|| "not installed".to_owned());
        println!("{:16}  {version}", subject.name());
    }
    println!("\nbudget of a report:\n{}", budget::table());
}

/// Measures, writes, and prints.
fn all(arguments: &Arguments, chosen: &[&'static dyn Scenario]) -> Result<ExitCode> {
    let depth = match (arguments.quick, arguments.tiny) {
        (true, _) => Depth::Quick,
        (_, true) => Depth::Tiny,
        _ => Depth::Full,
    };
    let started = Instant::now();
    let background = background_percent(Duration::from_millis(500))?;
    if background > 10.0 {
        eprintln!("bench: something else keeps this machine {background:.0} % busy: expect wide spreads");
    }
    if chosen.len() > 1 {
        eprintln!("bench: budget\n{}", budget::table());
    }
    let directory = Scratch::make()?;
    let mut found = Vec::new();
    for &scenario in chosen {
        let left = budget::REPORT_MAX.saturating_sub(started.elapsed());
        found.push(one(arguments, depth, scenario, &directory.0, left)?);
        check_interrupted()?;
    }
    let report = Report::new(Machine::look(background, started.elapsed()), found);
    print!("{}", report::markdown(&report));
    if chosen.len() > 1 {
        report::write(&report, &target())?;
    }
    if let Some(path) = &arguments.json {
        let json = report::json(&report)?;
        fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    let failed = report.found.iter().any(|found| found.failure.is_some());
    // A tiny round is there to fail when the harness does.
    let void = depth == Depth::Tiny && report.found.iter().any(|found| found.samples.has_void());
    Ok(if failed || void { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn one(
    arguments: &Arguments,
    depth: Depth,
    scenario: &'static dyn Scenario,
    directory: &Path,
    left: Duration,
) -> Result<Found> {
    let mut pace = budget::pace(scenario.name(), depth).context("the scenario has no budget")?;
    // On a slow machine the last scenarios make do with fewer rounds.
    pace.limit = pace.limit.min(left);
    if let Some(rounds) = arguments.rounds {
        ensure!(rounds > 0, "at least one round");
        pace.rounds = rounds;
    }
    let directory = directory.join(scenario.name());
    fs::create_dir_all(&directory)?;
    let mut samples = Samples::default();
    let subjects = present(&scenario.subjects(), &arguments.peers, &mut samples)?;
    let mut context = Context {
        scenario: scenario.name(),
        depth,
        pace,
        subjects,
        wiring: match arguments.over {
            Over::Veth => Wiring::Veth,
            Over::Loopback => Wiring::Loopback,
        },
        directory: &directory,
        samples,
        started: Instant::now(),
    };
    context.say(scenario.description());
    let result = scenario.run(&mut context);
    check_interrupted()?;
    let failure = result.err().map(|error| format!("{error:#}"));
    if let Some(failure) = &failure {
        context.say(format_args!("failed: {failure}"));
    }
    let (wiring, took) = (context.wiring, context.started.elapsed());
    fs::remove_dir_all(&directory)?;
    Ok(Found {
        scenario: scenario.name(),
        description: scenario.description(),
        wiring,
        took,
        samples: context.samples,
        failure,
    })
}

/// Those that were asked for and are installed; the others that were asked for are named.
fn present(subjects: &[Subject], asked: &[String], samples: &mut Samples) -> Result<Vec<Subject>> {
    for name in asked {
        let known = SUBJECTS.iter().any(|subject| subject.name() == *name);
        ensure!(known, "no subject `{name}`; see `list`");
    }
    let mut present = Vec::new();
    for &subject in subjects {
        if !asked.is_empty() && !asked.contains(&subject.name()) {
            continue;
        }
        if subject.peer.program().is_some() {
            present.push(subject);
        } else {
            samples.note(format!("{}: not installed (`cargo xtask setup --bench`)", subject.name()));
        }
    }
    if present.is_empty() && !subjects.is_empty() {
        bail!("none of the subjects is installed");
    }
    Ok(present)
}

fn watch(signal: i32) -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            interrupt();
        }
    });
    Ok(())
}

/// Where reports go.
fn target() -> PathBuf {
    std::env::var_os("LB_BENCH_DIR").map_or_else(|| PathBuf::from("target/bench"), PathBuf::from)
}

/// What directories of runs are called, before the process id.
const SCRATCH: &str = "lb-bench-";

/// A directory of this run; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self> {
        // In memory where that can be: a disk that is slow has no part in any of this.
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        Self::sweep(&place)?;
        let path = place.join(format!("{SCRATCH}{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Removes what killed runs left.
    fn sweep(place: &Path) -> Result<()> {
        for entry in fs::read_dir(place)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix(SCRATCH).is_some_and(|pid| !is_alive(pid)) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: cannot remove {}: {error}", self.0.display());
        }
    }
}
