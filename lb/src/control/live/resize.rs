//! How many workers there are: who comes and who goes, and which sockets change hands with that.
//!
//! ```text
//!  more:  start --> sockets of their own, and those that others had in their stead --> the others give these away
//!  fewer: who stays takes the sockets of who goes, too --> who goes takes nothing new, and ends with the last of the rest
//! ```
//! No socket closes for it, so whoever waits at one is served by whoever has it then. Flows of datagrams go with their
//! socket.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        addresses::{Addresses, Held, Moves},
        fixed::WAY_OUT,
        host,
        listeners::Group,
        workers::{Recruits, Worker, owner},
    },
    Live,
};
use crate::{
    admin::{WorkerView, changes::Refusal},
    config::Config,
    model::{GroupId, WorkerId},
    sys::affinity,
    worker::Command,
};

/// How long a worker may take to leave its flows to another one.
const SILENCE: Duration = Duration::from_secs(5);

/// What a change of `runtime.workers` takes; dropped, nothing has happened.
pub(super) struct Resize {
    cores: Vec<usize>,
    recruits: Recruits,
    /// Each a socket that changes hands.
    handed: Vec<Group>,
}

/// What is left of it once those who come listen.
pub(super) struct Handing {
    /// Those who had sockets that others have now.
    givers: Vec<(Worker, Vec<(GroupId, usize)>)>,
    leavers: Vec<Worker>,
    /// When these have left.
    deadline: Instant,
    /// Not listened at by others yet: two workers that read there would tear flows apart.
    datagrams: Vec<Group>,
}

impl Resize {
    /// How many there are to be.
    pub(super) const fn workers(&self) -> usize {
        self.cores.len()
    }
}

impl Live {
    /// What it takes to come to the workers of another config; `None`: they are the same.
    pub(super) fn resize(&self, next: &Config) -> Result<Option<Resize>, Refusal> {
        let refused = |message: String| Refusal::Unappliable { at: "runtime.workers".to_owned(), message };
        if next.runtime == self.plan.config.runtime {
            return Ok(None);
        }
        if self.views.now().is_draining() {
            // Who comes would not hear of the end.
            return Err(Refusal::NotReady("this process drains".to_owned()));
        }
        let allowed =
            affinity::allowed_cores().map_err(|error| refused(format!("sched_getaffinity: {error}")))?;
        let cores = host::place_workers(&next.runtime.workers, &allowed).map_err(refused)?;
        if cores == self.cores {
            return Ok(None);
        }
        let (before, after, most) = (self.workers.len(), cores.len(), self.all.siblings().most());
        if after > most {
            let message =
                format!("{after} workers, and when this process began it had {most} cores: {WAY_OUT}");
            return Err(refused(message));
        }
        let logs = self.has_queues || next.access_log.is_some();
        let log = || logs.then(|| self.log.queue()).transpose();
        let recruits = self.all.recruit(&cores, &self.compiled, log);
        let recruits = recruits.map_err(|error| refused(format!("{error:#}")))?;
        let mut handed = Vec::new();
        for (id, sockets) in self.borrow_sockets().map_err(Refusal::NotReady)? {
            let Some(held) = self.addresses.held().iter().find(|held| held.id == id) else { continue };
            let sockets = sockets.into_iter().enumerate();
            let changing = sockets.filter(|(place, _)| owner(*place, before) != owner(*place, after));
            handed.extend(changing.map(|(place, socket)| group(held, place, vec![socket])));
        }
        Ok(Some(Resize { cores, recruits, handed }))
    }

    /// The groups of addresses that stay, whole, under further descriptors; none for datagrams.
    pub(super) fn whole_groups(
        &self,
        next: &Addresses,
        opened: &[Group],
        is_wanted: impl Fn(&Held) -> bool,
    ) -> Result<Vec<Group>, Refusal> {
        let mut sockets = self.borrow_sockets().map_err(Refusal::NotReady)?;
        let mut groups = Vec::new();
        for held in next.held().iter().filter(|held| !held.wanted.is_udp && is_wanted(held)) {
            let Some(mut own) = sockets.remove(&held.id) else { continue };
            for socket in opened.iter().filter(|group| group.id == held.id).flat_map(|group| &group.sockets) {
                own.push(socket.try_clone().map_err(|error| Refusal::NotReady(format!("dup: {error}")))?);
            }
            groups.push(group(held, 0, own));
        }
        Ok(groups)
    }

    /// Who comes is one of the workers from now on, and who goes is none. Both are still to be told, as are those who take
    /// sockets over: of these the ones for connections are among `moves` then.
    pub(super) fn begin_resize(&mut self, resize: Resize, moves: &mut Moves) -> Handing {
        let Resize { cores, recruits, handed } = resize;
        let deadline = Instant::now() + self.plan.config.upgrade.drain_timeout;
        let (before, after) = (self.workers.clone(), cores.len());
        self.workers.extend(recruits.publish_to());
        self.all.enlist(recruits);
        let leavers = self.workers.split_off(after);
        self.all.dismiss(after, deadline);
        self.all.set_cores(&cores);
        self.all.siblings().set_serving(after);
        self.leaving.extend(leavers.iter().cloned());
        let serves =
            |worker: &Worker| self.workers.iter().any(|own| Arc::ptr_eq(&own.metrics, &worker.metrics));
        self.leaving.retain(|worker| !serves(worker));
        self.cores = cores;
        let mut given = BTreeMap::<usize, Vec<_>>::new();
        let mut datagrams = Vec::new();
        for mut group in handed {
            // Of an address that this change closes nothing is left to do.
            let Some(held) = self.addresses.held().iter().find(|held| held.id == group.id) else { continue };
            group.listener = held.wanted.listener;
            given.entry(owner(group.first, before.len())).or_default().push((group.id, group.first));
            if group.is_udp { datagrams.push(group) } else { moves.opened.push(group) }
        }
        let giver = |(at, places): (usize, _)| Some((before.get(at)?.clone(), places));
        let givers = given.into_iter().filter_map(giver).collect();
        self.show_workers();
        Handing { givers, leavers, deadline, datagrams }
    }

    /// Those who come listen: who goes may go, and others give away what is theirs no more. What is lost, one sentence
    /// each.
    pub(super) fn finish_resize(&self, handing: Handing) -> Vec<String> {
        let Handing { givers, leavers, deadline, datagrams } = handing;
        let mut answers = Vec::new();
        for (worker, places) in givers {
            let (flows, lent) = flume::bounded(1);
            worker.commands.send(Command::GiveAway { places, flows });
            answers.push(lent);
        }
        for worker in leavers {
            worker.commands.send(Command::HandOver { deadline, flows: None });
        }
        let until = Instant::now() + SILENCE;
        let mut flows: Vec<Vec<_>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut lost = Vec::new();
        for lent in answers {
            match lent.recv_deadline(until) {
                Ok(lent) => {
                    for flow in lent {
                        flows[owner(flow.place, self.workers.len())].push(flow);
                    }
                }
                Err(_) => {
                    lost.push(format!("a worker has not left its sockets to another one within {SILENCE:?}"))
                }
            }
        }
        self.all.take_over(datagrams, flows);
        lost
    }

    /// That datagrams do not come to all workers, where it is so.
    pub(super) fn narrow(next: &Addresses, workers: usize) -> impl Iterator<Item = String> + '_ {
        let narrow = move |held: &&Held| held.wanted.is_udp && held.sockets < workers;
        next.held().iter().filter(narrow).map(move |Held { wanted, sockets, .. }| {
            format!(
                "listener {}: datagrams come to {sockets} of {workers} workers, so that flows stay where they are: `lb \
                 upgrade` or a restart opens more sockets",
                wanted.name
            )
        })
    }

    fn show_workers(&self) {
        let view = self.views.now();
        let counted = self.all.siblings().counted();
        let workers = counted.into_iter().zip(0..).map(|(metrics, id)| {
            let known = view.workers.iter().find(|known| known.id == WorkerId(id)).map(|known| known.core);
            let core = self.cores.get(usize::from(id)).copied();
            WorkerView {
                id: WorkerId(id),
                core: core.or(known).unwrap_or_default(),
                metrics,
                has_left: core.is_none(),
            }
        });
        // A place may have been made for a change that was not.
        let is_shown =
            |worker: &WorkerView| !worker.has_left || view.workers.iter().any(|known| known.id == worker.id);
        let workers = workers.filter(is_shown).collect();
        self.views.replace(crate::admin::View { workers, ..(*view).clone() });
    }
}

fn group(held: &Held, first: usize, sockets: Vec<std::os::fd::OwnedFd>) -> Group {
    Group {
        id: held.id,
        listener: held.wanted.listener,
        address: held.address,
        is_udp: held.wanted.is_udp,
        first,
        sockets,
        ranges: held.wanted.ranges.clone(),
    }
}
