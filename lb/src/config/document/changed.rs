//! Entries of a config that a change touched.
//!
//! Configs are compared as values, and only what differs is shown: of 10 000 routes the one that changed.

use std::{collections::BTreeMap, sync::Arc};

use imbl::ordmap::DiffItem;
use serde_json::{Map, Value};

use crate::config::{
    Config,
    show::{listener, pool, vip},
    show_process::PROCESS_TABLES,
    show_route::route,
    show_tls::tls,
};

/// A table of the process, such as `limits`, or one of `[table.NAME]`, that is not the same in two configs.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedEntry {
    /// `limits`, `pool`, ...
    pub table: &'static str,
    /// Of `[table.NAME]`.
    pub name: Option<Arc<str>>,
    /// As it was, whole; `None`: it was not there.
    pub before: Option<Value>,
    /// As it is, whole; `None`: it is not there any more.
    pub after: Option<Value>,
}

impl ChangedEntry {
    /// Its path, such as `pool.api`.
    pub fn path(&self) -> String {
        match &self.name {
            Some(name) => format!("{}.{name}", self.table),
            None => self.table.to_owned(),
        }
    }
}

/// What differs, in the order of canonical JSON: tables by name, entries by name.
pub fn changed(before: &Config, after: &Config) -> Vec<ChangedEntry> {
    let mut found = Vec::new();
    for (table, show, is_same) in PROCESS_TABLES {
        if !is_same(before, after) {
            let (before, after) = (show(before), show(after));
            found.push(ChangedEntry { table, name: None, before, after });
        }
    }
    named("listener", &before.listeners, &after.listeners, listener, &mut found);
    named("pool", &before.pools, &after.pools, pool, &mut found);
    routes(before, after, &mut found);
    named("tls", &before.tls, &after.tls, tls, &mut found);
    named("vip", &before.vips, &after.vips, vip, &mut found);
    found.sort_by_key(|entry| entry.table);
    found
}

/// What two configs share is not looked at.
fn routes(before: &Config, after: &Config, found: &mut Vec<ChangedEntry>) {
    found.extend(before.routes.diff(&after.routes).map(|item| {
        let (old, new) = match item {
            DiffItem::Add(name, new) => (None, Some((name, new))),
            DiffItem::Update { old, new } => (Some(old), Some(new)),
            DiffItem::Remove(name, old) => (Some((name, old)), None),
        };
        ChangedEntry {
            table: "route",
            name: old.or(new).map(|(name, _)| name.clone()),
            before: old.map(|(_, value)| route(value)),
            after: new.map(|(_, value)| route(value)),
        }
    }));
}

/// Both maps are walked at once, by name.
fn named<T: PartialEq>(
    table: &'static str,
    before: &BTreeMap<Arc<str>, T>,
    after: &BTreeMap<Arc<str>, T>,
    show: fn(&T) -> Value,
    found: &mut Vec<ChangedEntry>,
) {
    let (mut olds, mut news) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let (old, new) = match (olds.peek(), news.peek()) {
            (None, None) => return,
            (Some((a, _)), Some((b, _))) if a == b => (olds.next(), news.next()),
            (Some((a, _)), Some((b, _))) if a > b => (None, news.next()),
            (None, Some(_)) => (None, news.next()),
            (Some(_), _) => (olds.next(), None),
        };
        if old.map(|(_, value)| value) == new.map(|(_, value)| value) {
            continue;
        }
        found.push(ChangedEntry {
            table,
            name: old.or(new).map(|(name, _)| name.clone()),
            before: old.map(|(_, value)| show(value)),
            after: new.map(|(_, value)| show(value)),
        });
    }
}

/// Makes one entry of a canonical document this one, or takes it out.
pub fn put_entry(document: &mut Value, table: &str, name: Option<&str>, value: Option<Value>) {
    let Value::Object(top) = document else { return };
    let (entries, key) = match name {
        None => (top, table),
        Some(name) => {
            let entries = top.entry(table).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(entries) = entries else { return };
            (entries, name)
        }
    };
    match value {
        Some(value) => _ = entries.insert(key.to_owned(), value),
        None => _ = entries.remove(key),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::parse;

    /// Small configs that differ in what they have and say.
    pub(in crate::config::document) fn configs() -> impl Strategy<Value = Config> {
        let pools = prop::collection::btree_map("[a-e]", (1..4_u16, any::<bool>()), 1..5);
        let routes = prop::collection::btree_map("[a-e]", (1..4_u16, "/[xyz]", any::<bool>()), 0..5);
        (pools, routes, 1..3_u32, any::<bool>()).prop_map(|(pools, routes, limit, has_log)| {
            let mut text = format!("version = 1\n[limits]\nconnections = {}\n", 100 * limit);
            if has_log {
                text += "[log]\naccess = \"json\"\n";
            }
            text += "[listener.web]\nbind = [\"127.0.0.1:80\"]\nprotocol = \"http\"\n";
            for (name, (weight, has_health)) in &pools {
                text += &format!(
                    "[pool.{name}]\nbackends = [{{ address = \"10.0.0.1:80\", weight = {weight} }}]\n"
                );
                if *has_health {
                    text += "health = { tcp = \"auto\" }\n";
                }
            }
            let pool = pools.keys().next().map_or("", String::as_str);
            for (name, (priority, path, sets)) in &routes {
                text += &format!(
                    "[route.{name}]\nlistener = \"web\"\npath = \"{path}/{name}\"\npool = \"{pool}\"\npriority = {priority}\n"
                );
                if *sets {
                    text += "set_headers = { request = { set = { \"X.a\" = \"1\" } } }\n";
                }
            }
            parse("made", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config
        })
    }

    proptest! {
        /// One config's JSON with what differs put into it is the other's.
        #[test]
        fn what_differs_makes_the_other(before in configs(), after in configs()) {
            let mut document = before.to_json();
            let entries = changed(&before, &after);
            prop_assert_eq!(entries.is_empty(), before == after);
            for entry in entries {
                put_entry(&mut document, entry.table, entry.name.as_deref(), entry.after);
            }
            prop_assert_eq!(document, after.to_json());
        }
    }

    /// Whatever table is forgotten here would be forgotten by every change.
    #[test]
    fn every_table_is_compared() {
        let before = parse("f", "version = 1").unwrap().config;
        let after = parse(
            "f",
            "version = 1\n[runtime]\nworkers = 3\n[xdp]\ninterfaces = [\"eth0\"]\n[admin]\nhttp = \"\"\n\
             [limits]\nconnections = 7\n[state]\ndir = \"/srv/x\"\n[health]\nprograms_dir = \"/etc/x\"\n\
             [dns]\nhold = \"1s\"\n[upgrade]\nmax_draining = 3\n[log]\naccess = \"json\"\n\
             [tls.t]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n\
             [vip.v]\naddress = [\"192.0.2.1\"]\nports = [\"80/tcp\"]\nforward = \"ipip\"\npool = \"v\"\n\
             [listener.l]\nbind = [\"127.0.0.1:80\"]\nprotocol = \"http\"\n\
             [route.r]\nlistener = \"l\"\npool = \"p\"\n[pool.p]\nbackends = [\"10.0.0.1:80\"]\n\
             [pool.v]\nbackends = [\"10.0.0.1\"]\nhealth = { exec = \"x\", port = 1 }\n",
        )
        .unwrap()
        .config;
        let paths: Vec<_> = changed(&before, &after).iter().map(ChangedEntry::path).collect();
        assert_eq!(
            paths,
            [
                "admin",
                "dns",
                "health",
                "limits",
                "listener.l",
                "log",
                "pool.p",
                "pool.v",
                "route.r",
                "runtime",
                "state",
                "tls.t",
                "upgrade",
                "vip.v",
                "xdp"
            ]
        );
        let Value::Object(shown) = after.to_json() else { panic!() };
        let tables: std::collections::BTreeSet<_> =
            paths.iter().map(|path| path.split('.').next().unwrap()).collect();
        assert!(shown.keys().filter(|key| *key != "version").all(|key| tables.contains(&**key)), "{shown:?}");
    }
}
