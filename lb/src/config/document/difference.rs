//! What tells two configs apart, key by key, as a person reads it.

use serde::Serialize;
use serde_json::Value;

use super::{ChangedEntry, changed};
use crate::config::{Config, problem::key_path};

/// One key that is not the same in two configs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its path, as in the file: `pool.api.backends`; `pool.api` where the whole entry came or went.
    pub key: String,
    /// What it was; `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Every key that differs, defaults included, in the order of canonical JSON. Tables are gone into down to single keys;
/// arrays, and entries that only one config has, are told as a whole.
pub fn differences(before: &Config, after: &Config) -> Vec<Difference> {
    Difference::of(changed(before, after))
}

impl Difference {
    /// Of entries that [`changed`].
    pub fn of(entries: Vec<ChangedEntry>) -> Vec<Self> {
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.path();
            descend(path, entry.before, entry.after, &mut found);
        }
        found
    }
}

fn descend(key: String, before: Option<Value>, after: Option<Value>, found: &mut Vec<Difference>) {
    let (mut olds, mut news) = match (before, after) {
        (before, after) if before == after => return,
        (Some(Value::Object(olds)), Some(Value::Object(news))) => (olds, news),
        (before, after) => return found.push(Difference { key, before, after }),
    };
    let prefix = format!("{key}.");
    let mut names: Vec<String> = olds.keys().chain(news.keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        descend(key_path(&prefix, &name), olds.remove(&name), news.remove(&name), found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::{document::changed::tests::configs, parse};

    fn keys(before: &str, after: &str) -> Vec<(String, Option<Value>, Option<Value>)> {
        let config = |text: &str| parse("f", &format!("version = 1\n{text}")).unwrap().config;
        let found = differences(&config(before), &config(after));
        found.into_iter().map(|difference| (difference.key, difference.before, difference.after)).collect()
    }

    const POOL: &str = "[pool.a]\nbackends = [\"10.0.0.1:80\"]\n";

    #[test]
    fn tables_are_told_by_key_and_arrays_as_a_whole() {
        let before = format!("{POOL}health = {{ tcp = \"auto\", fall = 3 }}\n");
        let after = "[pool.a]\nbackends = [\"10.0.0.2:80\"]\nhealth = { tcp = \"auto\", fall = 4 }\nmax_connections = 3\n";
        let backend = |address: &str| Some(json!([{ "address": address, "weight": 1 }]));
        assert_eq!(
            keys(&before, after),
            [
                ("pool.a.backends".to_owned(), backend("10.0.0.1:80"), backend("10.0.0.2:80")),
                ("pool.a.health.fall".to_owned(), Some(json!(3)), Some(json!(4))),
                ("pool.a.max_connections".to_owned(), None, Some(json!(3))),
            ]
        );
        assert_eq!(keys(&before, &before), []);
    }

    #[test]
    fn what_came_or_went_is_one_difference() {
        let both = format!("{POOL}[pool.b]\nbackends = [\"10.0.0.2:80\"]\n[limits]\nconnections = 7\n");
        let found = keys(POOL, &both);
        assert_eq!(
            found.iter().map(|(key, ..)| &**key).collect::<Vec<_>>(),
            ["limits.connections", "pool.b"]
        );
        assert_eq!((&found[1].1, found[1].2.as_ref().unwrap().is_object()), (&None, true));
        let back = keys(&both, POOL);
        assert_eq!((&back[1].0, &back[1].2), (&"pool.b".to_owned(), &None));
    }

    #[test]
    fn names_that_are_not_bare_are_quoted() {
        let route = |value: &str| {
            format!(
                "[listener.l]\nbind = [\"127.0.0.1:80\"]\nprotocol = \"http\"\n{POOL}[route.r]\nlistener = \"l\"\n\
                 pool = \"a\"\nset_headers = {{ request = {{ set = {{ \"x.y\" = \"{value}\" }} }} }}\n"
            )
        };
        let found = keys(&route("1"), &route("2"));
        assert_eq!(found[0].0, "route.r.set_headers.request.set.\"x.y\"");
    }

    proptest! {
        #[test]
        fn the_other_way_round_it_is_the_same(a in configs(), b in configs()) {
            let there = differences(&a, &b);
            let mut back = differences(&b, &a);
            for difference in &mut back {
                std::mem::swap(&mut difference.before, &mut difference.after);
            }
            prop_assert_eq!(there, back);
        }
    }
}
