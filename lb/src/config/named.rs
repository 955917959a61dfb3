//! Names, and the config that they make with what they stand for.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use super::{Backend, BackendPlace, Config, NamedBackends};
use crate::model::{BackendName, FoundBackend};

/// What names stand for at a time.
pub type Answers = BTreeMap<BackendName, Vec<FoundBackend>>;

impl Config {
    /// Every name, once, with the pools that have it.
    pub fn backend_names(&self) -> BTreeMap<BackendName, BTreeSet<Arc<str>>> {
        let mut names = BTreeMap::<_, BTreeSet<_>>::new();
        for (pool, name) in
            self.pools.iter().flat_map(|(pool, of)| of.names.iter().map(move |name| (pool, name)))
        {
            names.entry(name.name.clone()).or_default().insert(pool.clone());
        }
        names
    }

    /// The same with backends instead of names, behind those that the config has itself. Of backends in the same place
    /// the first one stays.
    pub fn with_answers(&self, answers: &Answers) -> Self {
        let mut config = self.clone();
        for pool in config.pools.values_mut().filter(|pool| !pool.names.is_empty()) {
            let mut seen: HashSet<_> = pool.backends.iter().map(|backend| backend.place.clone()).collect();
            let found = pool.names.iter().flat_map(|name| {
                let found = answers.get(&name.name).map(Vec::as_slice).unwrap_or_default();
                found.iter().map(move |found| backend(name, found))
            });
            let found: Vec<_> = found.filter(|backend| seen.insert(backend.place.clone())).collect();
            pool.backends.extend(found);
        }
        config
    }
}

fn backend(name: &NamedBackends, found: &FoundBackend) -> Backend {
    Backend {
        place: BackendPlace::Ip(found.address.ip(), Some(found.address.port())),
        weight: found.weight.unwrap_or(name.weight),
        server_id: None,
        backup: name.backup || found.backup,
        max_connections: name.max_connections,
        origin: Some(name.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{BackendIds, Snapshot, parse},
        model::{DomainName, Generation},
    };

    const TEXT: &str = "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\npool = \"p\"\n[pool.p]\n\
         backends = [\"10.0.0.1:80\", { address = \"a.internal:80\", weight = 7, max_connections = 3 }, \"srv:_s.internal\"]\n\
         [pool.q]\nbackends = [\"a.internal:80\"]\n";

    fn found(last: u8, weight: Option<u16>, backup: bool) -> FoundBackend {
        FoundBackend { address: ([10, 0, 0, last], 80).into(), weight, backup }
    }

    #[test]
    fn names_become_backends_whose_ids_last() {
        let config = parse("f", TEXT).unwrap().config;
        let name = BackendName::Host(DomainName::new("a.internal").unwrap(), 80);
        let service = BackendName::Service(DomainName::new("_s.internal").unwrap());
        let pools = config.backend_names();
        assert_eq!(pools[&name].iter().map(|pool| &**pool).collect::<Vec<_>>(), ["p", "q"]);
        let mut ids = BackendIds::new();
        let mut build = |answers: Answers| {
            let snapshot = Snapshot::build(&config.with_answers(&answers), Generation(1), &mut ids).unwrap();
            let show = |b: &crate::config::BackendSnapshot| {
                let (origin, backup) =
                    (b.origin.as_deref().unwrap_or("-"), if b.backup { " backup" } else { "" });
                (b.id.0, format!("{} {} {origin}{backup}", b.name, b.weight))
            };
            snapshot.pools[0].backends.iter().map(show).collect::<Vec<_>>()
        };
        let shown = |list: &[(u16, &str)]| {
            list.iter().map(|(id, text)| (*id, (*text).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(build(Answers::new()), shown(&[(1, "10.0.0.1:80 1 -")]));
        let first = Answers::from([
            (name.clone(), vec![found(1, None, false), found(2, None, false), found(3, None, false)]),
            (service.clone(), vec![found(3, Some(9), false), found(4, Some(5), true)]),
        ]);
        let expected = [
            (1, "10.0.0.1:80 1 -"),
            (2, "10.0.0.2:80 7 a.internal:80"),
            (3, "10.0.0.3:80 7 a.internal:80"),
            (4, "10.0.0.4:80 5 srv:_s.internal backup"),
        ];
        assert_eq!(build(first.clone()), shown(&expected));
        let moved = Answers::from([(name, vec![found(3, None, false), found(5, None, false)])]);
        let ids_now: Vec<_> = build(moved).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids_now[..2], [1, 3], "who stays has the id it had");
        assert_eq!(build(first), shown(&expected), "and who comes back");
    }
}
