//! From the name that a TLS client asks for to what was written for it.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::config::HostMatch;

/// The keys are the config's, not a client's, so a fixed hash seed is no weakness.
type Table<V> = HashMap<Box<[u8]>, V, FixedState>;

/// Names with their values: an exact one goes before the longest wildcard, which goes before none.
#[derive(Debug)]
pub struct Names<V> {
    exact: Table<V>,
    /// By length of the suffix, from long to short.
    suffixes: Vec<(usize, Table<V>)>,
}

impl<V: Copy> Names<V> {
    /// Of two values for the same name the first one stays.
    pub fn new<'a>(entries: impl IntoIterator<Item = (&'a HostMatch, V)>) -> Self {
        let mut names = Self { exact: Table::default(), suffixes: Vec::new() };
        for (name, value) in entries {
            match name {
                HostMatch::Exact(host) => _ = names.exact.entry(host.as_bytes().into()).or_insert(value),
                HostMatch::Suffix(suffix) => {
                    _ = names.of_len(suffix.len()).entry(suffix.as_bytes().into()).or_insert(value)
                }
                HostMatch::Any => {}
            }
        }
        names
    }

    fn of_len(&mut self, len: usize) -> &mut Table<V> {
        let at = match self.suffixes.binary_search_by(|(known, _)| len.cmp(known)) {
            Ok(at) => at,
            Err(at) => {
                self.suffixes.insert(at, (len, Table::default()));
                at
            }
        };
        &mut self.suffixes[at].1
    }

    /// What stands for a name in lower case.
    pub fn find(&self, name: &[u8]) -> Option<V> {
        self.exact.get(name).copied().or_else(|| {
            self.suffixes.iter().find_map(|(len, table)| {
                let start = name.len().checked_sub(*len).filter(|start| *start > 0)?;
                table.get(name.get(start..)?).copied()
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_name_has_it() {
        let exact = |host: &str| HostMatch::Exact(host.into());
        let suffix = |suffix: &str| HostMatch::Suffix(suffix.into());
        let entries =
            [suffix(".test"), exact("a.b.test"), suffix(".b.test"), suffix(".c.test"), exact("a.b.test")];
        let names = Names::new(entries.iter().zip(0..));
        for (name, expected) in [
            ("a.b.test", Some(1)),
            ("x.b.test", Some(2)),
            ("x.a.b.test", Some(2)),
            ("b.test", Some(0)),
            ("x.c.test", Some(3)),
            ("test", None),
            (".test", None),
            ("xtest", None),
            ("", None),
        ] {
            assert_eq!(names.find(name.as_bytes()), expected, "{name}");
        }
    }
}
