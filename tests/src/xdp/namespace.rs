//! A network namespace of a test thread's own, with the interfaces and neighbours of `world`.
#![expect(unsafe_code, reason = "unshare has no safe wrapper")]

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use lb_abi::slot::TICK_SHIFT;

use crate::{
    packet::Mac,
    xdp::world::{BACKENDS, LB0, LB0_MAC, LB1, LB1_MAC, MTU},
};

/// Moves the calling thread into a new network namespace and furnishes it. It ends with the thread.
pub fn enter() -> Result<()> {
    // SAFETY: takes flags only; concerns the calling thread, whose sockets nobody else uses.
    let error = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    ensure!(error == 0, "unshare: {}", io::Error::last_os_error());
    // Routes are only answered on interfaces that forward. The files show the namespace of the thread that
    // opens them.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("enabling IPv4 forwarding")?;
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").context("enabling IPv6 forwarding")?;
    ip(&links())?;
    for peer in ["peer0", "peer1"] {
        // Its solicitations and reports would come in by lb0 and lb1 at any time, and be counted.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{peer}/disable_ipv6"), "1")
            .context("a quiet peer")?;
    }
    ip(&addresses())
}

fn links() -> String {
    let mut lines = String::from("link set lo up\n");
    for (name, index, mac, net) in [("lb0", LB0, LB0_MAC, 0), ("lb1", LB1, LB1_MAC, 1)] {
        let mac = text(mac);
        let peer = index + 1;
        lines += &format!(
            "link add {name} index {index} address {mac} mtu {MTU} type veth peer name peer{net} index {peer}\n"
        );
    }
    lines
}

fn addresses() -> String {
    let mut lines = String::new();
    for (name, net) in [("lb0", 0), ("lb1", 1)] {
        lines += &format!(
            "addr add 10.0.{net}.1/24 dev {name}\n\
             addr add fd0{net}::1/64 dev {name} nodad\n\
             link set peer{net} up\n\
             link set {name} up\n"
        );
    }
    for backend in BACKENDS {
        if let Some((mac, interface)) = backend.neighbour {
            let name = if interface == LB0 { "lb0" } else { "lb1" };
            let mac = text(mac);
            lines += &format!("neigh add {} lladdr {mac} dev {name} nud permanent\n", backend.address);
        }
    }
    lines
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn ip(batch: &str) -> Result<()> {
    // A child is in the namespace of the thread that spawns it.
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("running ip (package iproute2)")?;
    let mut stdin = child.stdin.take().context("stdin of ip")?;
    stdin.write_all(batch.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip -batch: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Ticks, two seconds of them, for which rows are of now: some are about moments that are four seconds apart.
const FRESH_TICKS: u32 = 15;

/// Runs rows of now, one after the other: what failed. Where a kernel is slow, they are made anew now and then, so that
/// what is to be some seconds old is not much more.
pub fn each_fresh<Row>(
    rows: impl Fn(u32) -> Vec<Row>,
    mut run: impl FnMut(&Row) -> Result<(), String>,
) -> Vec<String> {
    let (mut now, mut failed) = (now_ticks(), Vec::new());
    let mut fresh = rows(now);
    for at in 0..fresh.len() {
        if now_ticks() - now > FRESH_TICKS {
            now = now_ticks();
            fresh = rows(now);
        }
        failed.extend(run(&fresh[at]).err());
    }
    failed
}

/// The clock that the programs read, in ticks.
pub fn now_ticks() -> u32 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    ((time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64) >> TICK_SHIFT) as u32
}
