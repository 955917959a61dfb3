//! The order in which everything comes up, and goes down.

use std::sync::atomic::Ordering;

use anyhow::Context;
use rustix::fs::Mode;
use sd_notify::NotifyState;

use super::{
    access_log::AccessLog,
    begin::{Begun, Ground},
    options::Options,
    plan::Overridden,
    reload,
    signals::{self, Wish},
    start::Start,
    workers::Workers,
};
use crate::admin::{Doors, View};

/// Runs until a signal ends it. XDP goes on forwarding afterwards.
///
/// # Errors
/// The config is invalid, the host refuses something that it needs, or a worker was lost.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // What we make is ours alone; the admin socket is then opened to its group.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let wishes = signals::listen().context("signal handlers")?;
    let overridden = Overridden { run_dir: options.run_dir.clone(), state_dir: options.state_dir.clone() };
    let start = Start::choose(options, &overridden)?;
    let config = &start.plan.config;
    let doors = Doors { socket: config.admin.socket.clone(), http: config.admin.http };
    // Asked before anything is touched: a second daemon must not get as far as the maps of the first.
    doors.check()?;
    let invitation = start.plan.invitation();
    let ground = Ground::find(&start.plan)?;
    let (log, logs) = AccessLog::start(ground.effective.access_log.as_ref(), ground.cores.len())?;
    let begun = Begun::begin(&start, ground, &options.bpf_dir, logs)?;
    let (workers, watched) = begun.watch(start, overridden, log.metrics.clone(), doors)?;
    ready(&watched.view, &workers);
    if let Some(invitation) = invitation {
        println!("{invitation}");
    }
    let on_drain = || {
        watched.view.draining.store(true, Ordering::Relaxed);
        notify(&[NotifyState::Stopping]);
    };
    let on_wish = |wish| match wish {
        Wish::Reload => reload::reload(&watched.changes, watched.view.config_path.as_deref()),
        Wish::ReopenLog => log.reopen(),
        Wish::End => {}
    };
    let served = workers.serve_until_end(&wishes, on_drain, on_wish);
    log.finish();
    served
}

fn ready(view: &View, workers: &Workers) {
    let bound: Vec<_> = view.snapshot.listeners.iter().flat_map(|listener| &listener.bind).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        generation = %view.snapshot.generation,
        workers = workers.views().len(),
        listeners = ?bound,
        vips = view.config.vips.len(),
        admin = %view.config.admin.socket.display(),
        "ready"
    );
    notify(&[NotifyState::Ready]);
}

/// Tells systemd, where it listens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "sd_notify");
    }
}
