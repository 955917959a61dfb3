//! The command line: arguments, logging, answers on a terminal. No logic.

mod args;
mod capture;
mod change;
mod diff;
mod logging;
mod render;
mod top;

use std::{
    fmt::Display,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use serde_json::{Value, json};

use self::args::{Asking, Check, Cli, Command, Decap, Detach, QuicId, Run, Show, Why};
use crate::{
    admin::{self, What},
    config::{self, Loaded, Problem, Problems, Severity},
    control::{self, Options, Paths, quic_id},
    model::{QuestionError, RequestQuestion},
};

/// Refused or invalid. Usage errors end with 2, by clap.
const REFUSED: u8 = 1;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => run_daemon(run),
        Command::Check(check) => return check_config(&check),
        Command::Diff(diff) => diff::run(&diff),
        Command::Schema => {
            print(pretty(&config::json_schema()));
            Ok(())
        }
        Command::Status(asking) => status(&asking),
        Command::Show(show) => show_list(&show),
        Command::Top(top) => top::run(&top),
        Command::Why(why) => ask_why(&why),
        Command::Capture(wanted) => capture::run(&wanted),
        Command::Apply(wanted) => change::apply(&wanted),
        Command::Rollback(wanted) => change::rollback(&wanted),
        Command::Drain(wanted) => change::drain(&wanted, "drain"),
        Command::Undrain(wanted) => change::drain(&wanted, "undrain"),
        Command::Weight(wanted) => change::weight(&wanted),
        Command::Upgrade(wanted) => change::upgrade(&wanted),
        Command::Detach(detach) => detach_all(&detach),
        Command::Decap(decap) => decapsulate(&decap),
        Command::QuicId(id) => connection_id(&id),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("lb: {message}");
            ExitCode::from(REFUSED)
        }
    }
}

fn run_daemon(run: Run) -> Result<(), String> {
    logging::start(&run.log)?;
    let options = Options {
        config: run.config,
        bpf_dir: run.bpf.bpf_dir,
        state_dir: run.state_dir,
        run_dir: run.run_dir,
        takes_over: run.take_over,
    };
    control::run(&options).map_err(whole)
}

fn check_config(check: &Check) -> ExitCode {
    let (problems, is_valid) = match config::load(&check.config) {
        Ok(loaded) => {
            let found = certificates(check, &loaded);
            let is_valid = found.iter().all(|problem| problem.severity != Severity::Error);
            let mut problems = warnings(check, loaded);
            problems.problems.extend(found);
            (problems, is_valid)
        }
        Err(problems) => (problems, false),
    };
    if check.json {
        print(pretty(&json!({
            "valid": is_valid,
            "problems": problems.problems,
            "omitted": problems.omitted,
        })));
    } else {
        if !problems.is_empty() {
            eprintln!("{problems}");
        }
        let verdict = if is_valid { "valid" } else { "invalid" };
        print(format!("{}: {verdict}\n", check.config.display()));
    }
    if is_valid { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

/// Of the files that a config refers to.
fn certificates(check: &Check, loaded: &Loaded) -> Vec<Problem> {
    match control::check_certificates(&loaded.config, &loaded.directory, &check.config) {
        Ok(problems) => problems,
        Err(error) => {
            eprintln!("lb: {}", whole(error));
            Vec::new()
        }
    }
}

/// Of a config that is valid.
fn warnings(check: &Check, loaded: Loaded) -> Problems {
    let mut warnings = loaded.warnings;
    if check.resolve {
        match control::unresolved(&loaded.config, &check.config) {
            Ok(unresolved) => warnings.problems.extend(unresolved),
            Err(error) => eprintln!("lb: {}", whole(error)),
        }
    }
    warnings
}

fn status(asking: &Asking) -> Result<(), String> {
    let document = admin::get(&socket(asking), "/v1/status")?;
    print(if asking.json { pretty(&document) } else { render::status(&document) });
    Ok(())
}

fn show_list(show: &Show) -> Result<(), String> {
    let what: What = show.what.parse().map_err(|()| format!("show {}: not known", show.what))?;
    let document = admin::get(&socket(&show.asking), &format!("/v1/show/{}", what.name()))?;
    if what == What::Config {
        print(pretty(&document[what.name()]));
        return Ok(());
    }
    if show.asking.json {
        print(pretty(&document));
        return Ok(());
    }
    let rows = document[what.name()].as_array().map_or(&[][..], Vec::as_slice);
    // There are dozens of reasons; those that never came to pass are only in the JSON.
    let happened: Vec<Value> =
        rows.iter().filter(|row| what != What::Drops || row["count"] != 0).cloned().collect();
    print(render::table(what.columns(), &happened));
    Ok(())
}

fn ask_why(why: &Why) -> Result<(), String> {
    let wrong = |wrong: QuestionError| render::pointed(&why.flow, &wrong);
    let socket = socket(&why.asking);
    let document = match RequestQuestion::is_meant(&why.flow) {
        true => admin::ask_why_request(&socket, &why.flow.parse().map_err(wrong)?),
        false => admin::ask_why(&socket, &why.flow.parse().map_err(wrong)?),
    }?;
    print(if why.asking.json { pretty(&document) } else { render::why(&document) });
    Ok(())
}

fn detach_all(detach: &Detach) -> Result<(), String> {
    let detached = control::detach(&detach.bpf.bpf_dir).map_err(whole)?;
    for (what, names) in [("interface", &detached.interfaces), ("map", &detached.maps)] {
        names.iter().for_each(|name| print(format_args!("detached {what} {name}\n")));
    }
    detached.left.iter().for_each(|name| print(format_args!("left {name}: not ours\n")));
    Ok(())
}

fn decapsulate(decap: &Decap) -> Result<(), String> {
    logging::start(&decap.log)?;
    control::decap(&decap.interface).map_err(whole)
}

fn connection_id(id: &QuicId) -> Result<(), String> {
    let QuicId { key, read, server, first: [first], nonce } = id;
    let said = match read {
        Some(read) => quic_id::read(key, read),
        None => quic_id::make(key, *first, server.unwrap_or(0), *nonce),
    };
    print(format_args!("{}\n", said.map_err(whole)?));
    Ok(())
}

fn socket(asking: &Asking) -> PathBuf {
    socket_of(asking.admin.as_deref())
}

fn socket_of(said: Option<&Path>) -> PathBuf {
    said.map_or_else(Paths::socket_to_ask, Path::to_owned)
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

/// With every cause, on as few lines as the causes have.
fn whole(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

/// To standard output; a reader that left early, such as `head`, is no error.
fn print(text: impl Display) {
    _ = write!(io::stdout().lock(), "{text}");
}
