//! Which number a listener goes by.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use lb_abi::bounds::STEER_LISTENERS_MAX;

use super::{Config, Snapshot};
use crate::model::ListenerId;

/// Most listeners of a config.
const LISTENERS_MAX: usize = STEER_LISTENERS_MAX as usize;

/// The stable map name -> [`ListenerId`]: connections and counters outlive configs.
///
/// The id of a listener that left is given out again once there are no fresh ones, the one that left first before the
/// others. A config has at most [`LISTENERS_MAX`] listeners.
#[derive(Clone, Debug, Default)]
pub struct ListenerIds {
    ids: BTreeMap<Arc<str>, ListenerId>,
    /// How many were given out.
    given: u16,
    free: VecDeque<ListenerId>,
}

impl ListenerIds {
    /// Every listener of `config` has one from now on, and no other.
    pub fn assign(&mut self, config: &Config) {
        let gone = self.ids.extract_if(.., |name, _| !config.listeners.contains_key(name));
        self.free.extend(gone.map(|(_, id)| id));
        for name in config.listeners.keys() {
            if self.ids.contains_key(name) {
                continue;
            }
            let fresh = usize::from(self.given) < LISTENERS_MAX;
            let id = if fresh { Some(ListenerId(self.given)) } else { self.free.pop_front() };
            let Some(id) = id else { return };
            self.given += u16::from(fresh);
            self.ids.insert(name.clone(), id);
        }
    }

    /// Of a listener of the last config.
    pub fn id(&self, name: &str) -> Option<ListenerId> {
        self.ids.get(name).copied()
    }
}

impl Snapshot {
    /// Gives its listeners the numbers that they have there.
    pub fn number_listeners(&mut self, ids: &ListenerIds) {
        for listener in &mut self.listeners {
            listener.id = ids.id(&listener.name).unwrap_or(listener.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(names: impl IntoIterator<Item = String>) -> Config {
        let one = Config::quickstart(&[([127, 0, 0, 1], 1).into()], "/run/lb/admin.sock".into());
        let listener = one.listeners.values().next().unwrap().clone();
        let listeners = names.into_iter().map(|name| (name.into(), listener.clone())).collect();
        Config { listeners, ..one }
    }

    #[test]
    fn who_stays_keeps_its_number_and_who_left_first_is_followed_first() {
        let mut ids = ListenerIds::default();
        let named = |names: &str| config(names.split(' ').map(str::to_owned));
        ids.assign(&named("b c"));
        ids.assign(&named("a c"));
        assert_eq!(
            ["a", "b", "c"].map(|name| ids.id(name)),
            [Some(ListenerId(2)), None, Some(ListenerId(1))]
        );
        for round in 0..LISTENERS_MAX {
            ids.assign(&named(&format!("c {round}x")));
        }
        let last = ids.id(&format!("{}x", LISTENERS_MAX - 1)).unwrap();
        assert_ne!(Some(last), ids.id("c"));
        ids.assign(&config((0..LISTENERS_MAX).map(|at| format!("n{at}"))));
        let all: std::collections::BTreeSet<_> =
            (0..LISTENERS_MAX).map(|at| ids.id(&format!("n{at}")).unwrap()).collect();
        assert_eq!(all.len(), LISTENERS_MAX);
    }
}
