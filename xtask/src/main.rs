//! Development verbs: `cargo xtask VERB`.
//!
//! Depends on next to nothing, so that the first `cargo xtask` on a new machine starts within seconds.
//! Each verb is a file and asks [`setup`] for what it needs; none assumes that another ran before.

mod bench;
mod build_ebpf;
mod ci;
mod demo;
mod elf;
mod fuzz;
mod machine;
mod needs;
mod peers;
mod run;
mod setup;
mod test;
mod tidy;
mod vmtest;
mod wheels;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask VERB

  setup [--bench]   install what building and testing need (as root), or print the commands
  build-ebpf        build the kernel half to target/bpf/lb.o
  run [-- ARGS]     build everything and start `lb run ARGS`; without arguments: the quickstart
  test [ARGS]       all tests; ARGS go to `cargo test`, such as a name filter
  e2e [ARGS]        the network-namespace tests alone
  vmtest [KERNEL]   the packet programs on the kernels that Debian ships, under qemu
  demo              a tour of the three ways through the box, in network namespaces (root)
  fuzz WHAT [...]   what reads foreign bytes, under libFuzzer: `list`, or TARGET [--seconds N] [FILE...]
  bench WHAT [...]  lb beside its peers: `list`, a scenario, or `report` (root; bench/README.md)
  tidy              import directions, doors of unsafe and of heavy dependencies, sizes
  ci                format, lints, tidy, test, vmtest: what has to pass before a change lands";

/// A verb that ends otherwise than by an error of ours hands on the exit code of what it ran.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<ExitCode> {
    let Some((verb, rest)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let workspace = Workspace::find()?;
    match verb.as_str() {
        "setup" => setup::verb(&workspace, rest),
        "build-ebpf" => none(rest).and_then(|()| build_ebpf::verb(&workspace)),
        "run" => run::verb(&workspace, rest),
        "test" => test::all(&workspace, rest),
        "e2e" => test::e2e(&workspace, rest),
        "vmtest" => vmtest::verb(&workspace, rest),
        "demo" => demo::verb(&workspace, rest),
        "fuzz" => fuzz::verb(&workspace, rest),
        "bench" => bench::verb(&workspace, rest),
        "tidy" => none(rest).and_then(|()| tidy::verb(&workspace)),
        "ci" => none(rest).and_then(|()| ci::verb(&workspace)),
        "help" | "-h" | "--help" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => {
            eprintln!("xtask: no verb `{other}`\n\n{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

fn none(arguments: &[String]) -> Result<()> {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => bail!("this verb takes no arguments, not `{argument}`"),
    }
}
