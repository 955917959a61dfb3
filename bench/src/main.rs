//! `lb-bench`: lb beside its peers. Started by `cargo xtask bench`, which builds and installs what it needs.
//!
//! A scenario sets a stage (namespaces, backend, subjects), measures every subject in interleaved rounds, and
//! leaves samples; void runs are named and left out. The report holds all of them and their ratios.

mod backend;
mod budget;
mod check;
mod cli;
mod context;
mod http2_backend;
mod interrupt;
mod load;
mod machine;
mod measure;
mod named;
mod netns;
mod peers;
mod process;
mod report;
mod sample;
mod scenario;
mod stage;
mod system;
mod topology;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
