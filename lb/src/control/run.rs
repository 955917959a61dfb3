//! The order in which everything comes up, and goes down.

use std::sync::{Arc, atomic::Ordering};

use anyhow::Context;
use rustix::{fs::Mode, process::Signal};
use sd_notify::NotifyState;

use super::{
    access_log::AccessLog,
    begin::{Begun, Watched, Watching},
    ground::Ground,
    options::Options,
    plan::Overridden,
    reload,
    signals::{self, Wish},
    start::Start,
    succession::{self, Succession},
    systemd::notify,
    workers::Workers,
};
use crate::{
    admin::{Doors, View},
    sys::lock,
    upgrade::{Inheritance, Predecessor, store},
};

/// Runs until a signal ends it, or another process has taken over. XDP goes on forwarding afterwards.
///
/// # Errors
/// The config is invalid, the host refuses something that it needs, or a worker was lost.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // What we make is ours alone; the admin socket is then opened to its group.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let (predecessor, inheritance) = succession::receive(options.takes_over)?;
    let served = serve(options, predecessor.as_ref(), inheritance);
    if let (Err(error), Some(predecessor)) = (&served, &predecessor) {
        // Once it has left, it does not listen to this any more.
        predecessor.refuse(&format!("{error:#}"));
    }
    served
}

fn serve(
    options: &Options,
    predecessor: Option<&Predecessor>,
    mut inheritance: Inheritance,
) -> anyhow::Result<()> {
    let (others, wishes) = signals::listen().context("signal handlers")?;
    let overridden = Overridden { run_dir: options.run_dir.clone(), state_dir: options.state_dir.clone() };
    let start = Start::choose(options, &overridden)?;
    let config = &start.plan.config;
    let doors = Doors { socket: config.admin.socket.clone(), http: config.admin.http };
    let unix = inheritance.admin.take().filter(|(path, _)| *path == doors.socket).map(|(_, fd)| fd);
    let tcp = inheritance.http.take().filter(|(address, _)| Some(*address) == doors.http).map(|(_, fd)| fd);
    if predecessor.is_none() {
        // Asked before anything is touched: a second daemon must not get as far as the maps of the first.
        doors.check()?;
    }
    let invitation = start.plan.invitation();
    let ground = Ground::find(&start.plan)?;
    let (log, logs) = AccessLog::start(ground.effective.access_log.as_ref(), ground.cores.len())?;
    let log = Arc::new(log);
    let begun = Begun::begin(&start, ground, &options.bpf_dir, logs, &mut inheritance)?;
    lock::forget_inherited();
    let open = doors.open_but(unix, tcp)?;
    let (succession, ending) = Succession::new(others);
    inheritance.leaving.iter().for_each(|leaving| succession.predecessors.add(leaving));
    let predecessors = succession.predecessors.clone();
    let (go, may_go) = flume::bounded(1);
    let watching = Watching { overridden, log: log.clone(), doors, open, may_go, succession };
    let (workers, watched) = begun.watch(start, watching)?;
    let Watched { view, changes, server, kept, withheld } = watched;
    if let Some(predecessor) = predecessor {
        let flows = succession::take_over(predecessor, &predecessors).context("a thread")?;
        let count = workers.views().len();
        let flows = succession::flows_here(flows, &inheritance.order, kept.held(), &view.snapshot, count);
        workers.take_over(withheld, flows);
    }
    drop(go);
    kept.keep();
    ready(&view, &workers);
    if let Some(invitation) = invitation {
        println!("{invitation}");
    }
    let on_drain = || {
        view.draining.store(true, Ordering::Relaxed);
        store::forget_all();
        notify(&[NotifyState::Stopping]);
    };
    let on_wish = |wish| match wish {
        Wish::Reload => reload::reload(&changes, view.config_path.as_deref()),
        Wish::ReopenLog => {
            log.reopen();
            // Those that drain still write to the same file.
            predecessors.signal(Signal::USR1);
        }
        Wish::HandOver(_) => view.draining.store(true, Ordering::Relaxed),
        Wish::End => {}
    };
    let served = workers.serve_until_end(&wishes, || ending.has_heir(), on_drain, on_wish);
    ending.finish();
    server.handle().finish();
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
