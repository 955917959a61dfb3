//! `vmtest`: the packet programs on the kernels that Debian ships, in a virtual machine each.
//!
//! Nothing is installed: packages are downloaded and unpacked below `target/vmtest`, and the guest is an initramfs
//! of the test programs that `cargo test` built, the shared libraries they name, and a busybox. The guest tells
//! everything by its serial console, which [`report`] reads. A guest is interpreted, many times slower than the host:
//! the tests here are chosen for what differs between kernels.

mod cpio;
mod debian;
mod guest;
mod qemu;
mod report;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use self::{
    debian::{Kernel, Series},
    guest::Suite,
    qemu::Emulator,
};
use crate::{
    build_ebpf,
    needs::Group,
    setup,
    workspace::{Workspace, run},
};

/// Kernels, oldest first. The oldest is the floor that the README states.
const KERNELS: [Series; 2] = [Series { name: "6.1" }, Series { name: "6.12" }];

/// One guest, from power to its last word; two of them on two cores take 14 minutes, and half as long again where others
/// work beside them.
const LIMIT: Duration = Duration::from_secs(1800);

/// What runs there: every program loaded, the rows, real frames, links and listener groups, and the daemon where
/// its way into the kernel depends on the version (clsact or tcx, sk_lookup, pinned links).
const SUITES: [Suite; 3] = [
    // What needs no kernel is skipped.
    Suite {
        program: "xdp",
        source: "tests/xdp/main.rs",
        arguments: &[
            "--test-threads=1",
            "--skip=nat::",
            "--skip=rows::host",
            "--skip=rows::bent",
            "--skip=rows::errors_of_every_length",
            "--skip=rows::names",
            // Below, the daemon's own loader has all of them verified at full bounds.
            "--skip=object::loads_and_attaches",
            "--skip=witness::a_live",
            "--skip=witness::a_dry",
            "--skip=witness::rows_reach",
        ],
    },
    // Each of the first three has every program verified once more; TLS in the kernel is nowhere else.
    Suite {
        program: "lb",
        source: "lb/src/lib.rs",
        arguments: &[
            "--test-threads=1",
            "steering::tests::pins_outlive",
            "steering::tests::links::a_link_is_native",
            "steering::tests::steer::the_core",
            "worker::tests::ktls",
        ],
    },
    Suite {
        program: "e2e",
        source: "tests/e2e/main.rs",
        arguments: &["--test-threads=1", "tunnel::a_backend_that", "ranges::a_listener"],
    },
];

/// `vmtest [SERIES]`: all kernels, or one.
pub(crate) fn verb(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let chosen: Vec<&Series> = match arguments {
        [] => KERNELS.iter().collect(),
        [name] => KERNELS.iter().filter(|series| series.name == name).collect(),
        _ => bail!("vmtest takes one kernel series, or nothing"),
    };
    if chosen.is_empty() {
        bail!("vmtest knows the kernels {}", KERNELS.map(|series| series.name).join(" and "));
    }
    setup::ensure(workspace, &[Group::Build, Group::Bpf, Group::Test, Group::Machine])?;
    build_ebpf::build(workspace)?;
    run(workspace.cargo().args(["build", "--workspace", "--bins", "--tests"]))?;
    let place = workspace.target.join("vmtest");
    let emulator = Emulator::find(workspace, &place)?;
    let userland = guest::userland(workspace, &place, &SUITES)?;
    let mut failed = Vec::new();
    let mut guests = Vec::new();
    for series in chosen {
        match debian::kernel(workspace, &place, series) {
            Ok(kernel) => guests.push((series, kernel)),
            Err(error) => failed.push(refused(series, &error)),
        }
    }
    // At the same time: most of their time is the verifier's, on one core.
    std::thread::scope(|scope| {
        let boot = |(series, kernel)| {
            let (place, emulator, userland) = (&place, &emulator, &userland);
            (series, scope.spawn(move || on(workspace, place, series, &kernel, emulator, userland)))
        };
        for (series, guest) in guests.into_iter().map(boot).collect::<Vec<_>>() {
            let ended = guest.join().unwrap_or_else(|_| bail!("the test of the test panicked"));
            failed.extend(ended.err().map(|error| refused(series, &error)));
        }
    });
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(" and "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what went wrong with a kernel; gives back its name.
fn refused(series: &Series, error: &anyhow::Error) -> &'static str {
    eprintln!("vmtest: {}: {error:#}", series.name);
    series.name
}

/// Boots one kernel and judges what its guest said.
fn on(
    workspace: &Workspace,
    place: &std::path::Path,
    series: &Series,
    kernel: &Kernel,
    emulator: &Emulator,
    userland: &cpio::Archive,
) -> Result<()> {
    let mut archive = userland.clone();
    kernel.add_modules(workspace, &mut archive)?;
    let started = Instant::now();
    let initramfs: PathBuf = place.join(format!("initramfs-{}", series.name));
    fs::write(&initramfs, archive.finish()).with_context(|| format!("write {}", initramfs.display()))?;
    let log = place.join(format!("console-{}.log", series.name));
    let ended = emulator.boot(&kernel.image, &initramfs, &log, LIMIT);
    fs::remove_file(&initramfs).with_context(|| format!("remove {}", initramfs.display()))?;
    let bytes = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    let console = String::from_utf8_lossy(&bytes);
    let names: Vec<&str> = SUITES.iter().map(|suite| suite.program).collect();
    match ended.and_then(|()| report::judge(&console, &names)) {
        Ok(summary) => {
            println!("vmtest: {}: {summary}; {:.1} s", kernel.version, started.elapsed().as_secs_f64());
            Ok(())
        }
        Err(error) => {
            eprintln!("{console}");
            Err(error.context(format!("{} (console in {})", kernel.version, log.display())))
        }
    }
}
