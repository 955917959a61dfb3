//! `lb upgrade`, as the process sees it that is to leave.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;

use super::{
    super::{
        addresses::Held, known::Known, listeners::Group, plane::NewDoors, reload, succession::totals,
        systemd::notify, workers::Worker,
    },
    Live,
};
use crate::{
    admin::changes::{Acknowledged, Applied, Edit, Etag, Refusal, Upgraded, When, Wish},
    config::BackendSnapshot,
    model::GroupId,
    sys::lock,
    upgrade::{Down, Ejections, FlowOffer, Go, GroupOffer, Leaving, Lent, Offer, Secrets, Successor, binary},
    worker::{Command, LentFlow},
};

/// How long a worker may take to lend its sockets, and then its flows; on a busy machine it may have to wait for its core.
const SILENCE: Duration = Duration::from_secs(5);

/// The sockets of each group, in their order.
pub(super) type Sockets = BTreeMap<GroupId, Vec<OwnedFd>>;

impl Live {
    /// What is to be done about a wish: where only another program would be upgraded to and there is none, it is about
    /// the config's file.
    pub(super) fn meant<'w>(&self, wish: &'w Wish) -> Result<Cow<'w, Wish>, Refusal> {
        let Edit::Upgrade(program, When::ProgramDiffers) = &wish.edit else { return Ok(Cow::Borrowed(wish)) };
        let refused = |at: &str, message: String| Refusal::Unappliable { at: at.to_owned(), message };
        let own = || binary::own().map_err(|error| error.to_string());
        let program = program.clone().map_or_else(own, Ok).and_then(|program| {
            // First: what is no program may never be read to its end.
            let program = binary::check(&program)?;
            let differs =
                binary::is_other(&program).map_err(|error| format!("{}: {error}", program.display()))?;
            Ok((program, differs))
        });
        let (program, differs) = program.map_err(|message| refused("upgrade", message))?;
        let edit = match (&self.plan.path, differs) {
            (_, true) => Edit::Upgrade(Some(program), When::Always),
            (Some(path), false) => {
                let (path, text) =
                    reload::read(path).map_err(|error| refused("config", error.to_string()))?;
                Edit::File { path, text }
            }
            (None, false) => {
                return Err(refused("config", "the quickstart has no config file".to_owned()));
            }
        };
        Ok(Cow::Owned(Wish { edit, ..wish.clone() }))
    }

    /// Starts another process, hands everything over and leaves; or goes on as if nothing had been.
    pub(super) fn upgrade(&mut self, wish: &Wish, program: Option<&Path>) -> Result<Applied, Refusal> {
        let refused = |message: String| Refusal::Unappliable { at: "upgrade".to_owned(), message };
        let current = Etag::from(self.fingerprint);
        if wish.if_match.as_ref().is_some_and(|wanted| !wanted.contains(&current)) {
            return Err(Refusal::Lost { current });
        }
        let own = || binary::own().map_err(|error| error.to_string());
        let program = program.map_or_else(own, |program| Ok(program.to_owned()));
        let program = program.and_then(|program| binary::check(&program)).map_err(refused)?;
        self.check_leaving().map_err(refused)?;
        let mut applied = Applied {
            generation: self.snapshot.generation,
            took_ms: 0.0,
            acknowledged: Acknowledged::default(),
            changed: vec![format!("upgrade {}", program.display())],
            warnings: Vec::new(),
            dry_run: wish.is_dry,
            upgraded: None,
            etag: Etag::from(self.fingerprint),
        };
        if wish.is_dry {
            return Ok(applied);
        }
        let began = Instant::now();
        tracing::info!(program = %program.display(), "upgrade: another process is to take over");
        let (successor, version) = self.prepare_successor(&program).map_err(|why| {
            tracing::error!(%why, "upgrade: this process goes on");
            refused(why)
        })?;
        let pid = successor.pid();
        self.hand_over(successor, &mut applied);
        tracing::info!(pid, version, took = ?began.elapsed(), "upgrade: the other process has taken over");
        applied.acknowledged.workers = self.workers.len();
        applied.upgraded = Some(Upgraded { pid, version });
        Ok(applied)
    }

    fn check_leaving(&self) -> Result<(), String> {
        let leaving = self.succession.predecessors.list();
        let most = self.plan.config.upgrade.max_draining;
        if leaving.len() < most {
            return Ok(());
        }
        let pids: Vec<String> = leaving.iter().map(|leaving| leaving.pid.to_string()).collect();
        Err(format!(
            "{} older processes still drain (pid {}), and upgrade.max_draining is {most}: wait for one, or end it \
             with SIGTERM",
            leaving.len(),
            pids.join(", ")
        ))
    }

    /// Everything that may fail. Then nothing has changed.
    fn prepare_successor(&mut self, program: &Path) -> Result<(Successor, String), String> {
        let sockets = self.borrow_sockets()?;
        let (offer, lent) = self.offer(&sockets)?;
        if let Some(path) = &self.path {
            path.freeze()?;
        }
        let prepared = Successor::start(program).and_then(|mut successor| {
            let ready = successor.prepare(&offer, &lent)?;
            Ok((successor, ready.version))
        });
        if prepared.is_err() {
            self.thaw(sockets);
        }
        prepared
    }

    /// Nothing of this can fail: the other process has everything already.
    fn hand_over(&self, successor: Successor, applied: &mut Applied) {
        if !self.doors.retire() {
            applied.warnings.push("the admin socket may still answer for the old process".to_owned());
        }
        // First: from then on systemd hears the other one alone.
        notify(&[NotifyState::MainPid(successor.pid())]);
        self.succession.begin_to_leave();
        let views = self.views.clone();
        let patience = self.plan.config.upgrade.drain_timeout;
        let (flows, sockets): (_, Vec<_>) = self.end_flows(Instant::now() + patience).into_iter().unzip();
        let go = Go { totals: totals(&views, Instant::now()), flows };
        if let Err(error) = successor.go(&go, &sockets) {
            applied.warnings.push(format!("the new process does not hear that it is the one: {error}"));
        }
        if let Err(error) = self.succession.leave(successor, views, patience) {
            applied.warnings.push(format!("what this process still counts is lost: {error}"));
        }
    }

    /// Every socket that workers listen at, under a further descriptor.
    pub(super) fn borrow_sockets(&self) -> Result<Sockets, String> {
        let mut sockets = BTreeMap::<GroupId, BTreeMap<usize, OwnedFd>>::new();
        let ask = |worker: &Worker| {
            let (borrower, lent) = flume::bounded(1);
            worker.commands.send(Command::Lend(borrower));
            lent
        };
        let answers: Vec<_> = self.workers.iter().map(ask).collect();
        for (at, answer) in answers.into_iter().enumerate() {
            let lent = answer.recv_timeout(SILENCE);
            let lent = lent.map_err(|_| format!("worker {at} has not answered within {SILENCE:?}"))?;
            for lent in lent {
                sockets.entry(lent.group).or_default().insert(lent.place, lent.socket);
            }
        }
        let is_whole = |held: &Held| sockets.get(&held.id).is_some_and(|group| group.len() == held.sockets);
        match self.addresses.held().iter().find(|held| !is_whole(held)) {
            Some(held) => Err(format!("not every worker listens at {}", held.address)),
            None => Ok(sockets.into_iter().map(|(id, group)| (id, group.into_values().collect())).collect()),
        }
    }

    /// Has every worker leave what is new to the other process, and gives it the flows of datagrams.
    fn end_flows(&self, deadline: Instant) -> Vec<(FlowOffer, OwnedFd)> {
        let ask = |worker: &Worker| {
            let (heir, lent) = flume::bounded(1);
            worker.commands.send(Command::HandOver { deadline, flows: Some(heir) });
            lent
        };
        let answers: Vec<_> = self.workers.iter().map(ask).collect();
        let until = Instant::now() + SILENCE;
        let lent = answers.into_iter().flat_map(|answer| answer.recv_deadline(until).unwrap_or_default());
        let backends = || self.snapshot.pools.iter().flat_map(|pool| &pool.backends);
        let offer = |LentFlow { group, place, client, asked, backend, socket }| {
            let group = self.addresses.held().iter().position(|held| held.id == group)?;
            let backend = backends().find(|known| known.id == backend)?.name.to_string();
            Some((FlowOffer { group, worker: place, client, asked, backend }, socket))
        };
        lent.filter_map(offer).collect()
    }

    fn offer(&self, sockets: &Sockets) -> Result<(Offer, Lent), String> {
        let failed = |error: std::io::Error| format!("descriptors: {error}");
        let (admin, http, doors) = self.doors.lend().map_err(failed)?;
        let mut lent = Lent { locks: lock::held().map_err(failed)?, doors, groups: Vec::new() };
        let mut groups = Vec::new();
        for held in self.addresses.held() {
            let own = sockets.get(&held.id).map_or(&[][..], Vec::as_slice);
            groups.push(GroupOffer {
                address: held.wanted.address,
                bound: held.address,
                is_udp: held.wanted.is_udp,
                ranges: held.wanted.spelled_ranges(),
                sockets: own.len(),
            });
            lent.groups.push(own.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>().map_err(failed)?);
        }
        let leaving = self.succession.predecessors.list();
        let offer = Offer {
            format: crate::upgrade::FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            locks: lent.locks.len(),
            admin: Some(admin),
            http,
            groups,
            down: self.down(),
            ejections: self.ejections(),
            ticket_keys: Secrets(self.certificates.keys().material().map(<[u8]>::to_vec).collect()),
            leaving: leaving.iter().map(|one| Leaving { pid: one.pid, seconds: one.seconds }).collect(),
        };
        Ok((offer, lent))
    }

    /// Backends that are down by their checks, and why.
    fn down(&self) -> Vec<Down> {
        let view = self.views.now();
        let is_down = |backend: &BackendSnapshot| {
            let findings = view.checks.get(&backend.id)?.report.findings();
            findings.is_down.then(|| match findings.changed {
                Some((at, reason)) => (Some(reason), at.elapsed().as_secs()),
                None => (None, 0),
            })
        };
        let down = view.backends().filter_map(|(pool, backend)| {
            let (reason, seconds) = is_down(backend)?;
            Some(Down { pool: pool.to_owned(), backend: backend.name.to_string(), reason, seconds })
        });
        down.collect()
    }

    /// Backends that exchanges speak against, or spoke against not long ago.
    fn ejections(&self) -> Vec<Ejections> {
        let Some(all) = self.prober.known(SILENCE) else {
            tracing::warn!("upgrade: who is ejected is not known, and so not handed over");
            return Vec::new();
        };
        let backends = || self.snapshot.pools.iter().flat_map(|pool| &pool.backends);
        let name = |id| backends().find(|backend| backend.id == id).map(|backend| backend.name.to_string());
        let now = Instant::now();
        let tell = |known: Known| {
            let name = name(known.id)?;
            Some(known.tell(name, now))
        };
        all.into_iter().filter_map(tell).collect()
    }

    /// The other process may have come to write maps and to take sockets into its own: all of that is done anew.
    fn thaw(&self, mut sockets: Sockets) {
        let Some(path) = &self.path else { return };
        if let Err(error) = path.thaw() {
            tracing::error!(error, "after an upgrade that failed, programs could not be put back");
        }
        if self.effective.xdp.is_some() {
            self.bring_back();
        }
        let groups = self.addresses.held().iter().filter(|held| !held.wanted.is_udp).map(|held| Group {
            id: held.id,
            listener: held.wanted.listener,
            address: held.address,
            is_udp: false,
            first: 0,
            sockets: sockets.remove(&held.id).unwrap_or_default(),
            ranges: held.wanted.ranges.clone(),
        });
        let opened = groups.collect();
        let (config, cores, held) =
            (self.effective.clone(), self.cores.clone(), self.addresses.held().to_vec());
        let lost = path.listen(NewDoors { config, cores, held, opened });
        lost.iter().for_each(|lost| tracing::warn!("{lost}"));
    }
}
