//! Tells configs apart by a number.

use std::fmt;

use serde_json::Value;

use super::ChangedEntry;
use crate::config::{Config, Digest};

/// 128 bits of the canonical JSON: the sum of one digest for each entry, so that a change costs what it touches.
///
/// The digest of an entry is FNV-1a of its path and compact JSON, mixed: FNV alone is so linear that two weights which
/// are swapped could cancel each other out. It proves nothing against forgery. The same for the same config in every
/// process of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Of a whole config: as slow as writing it out.
    pub fn of(config: &Config) -> Self {
        let mut sum = 0_u128;
        let Value::Object(top) = config.to_json() else { return Self(0) };
        for (table, shown) in &top {
            match shown {
                Value::Object(entries) if NAMED.contains(&table.as_str()) => {
                    for (name, entry) in entries {
                        sum = sum.wrapping_add(digest(table, Some(name), entry));
                    }
                }
                shown => sum = sum.wrapping_add(digest(table, None, shown)),
            }
        }
        Self(sum)
    }

    /// Of the config that these changes make of this one.
    #[must_use]
    pub fn after(self, changed: &[ChangedEntry]) -> Self {
        let of = |entry: &ChangedEntry, value: &Option<Value>| {
            value.as_ref().map_or(0, |value| digest(entry.table, entry.name.as_deref(), value))
        };
        Self(changed.iter().fold(self.0, |sum, entry| {
            sum.wrapping_sub(of(entry, &entry.before)).wrapping_add(of(entry, &entry.after))
        }))
    }
}

/// Tables of entries.
const NAMED: [&str; 5] = ["vip", "listener", "route", "tls", "pool"];

/// 32 hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

fn digest(table: &str, name: Option<&str>, value: &Value) -> u128 {
    let mut text = String::from(table);
    if let Some(name) = name {
        text.push('.');
        text.push_str(name);
    }
    // No JSON begins so, and no name has it.
    text.push('=');
    text.push_str(&value.to_string());
    mix(Digest::of(text.as_bytes()).0)
}

/// Spreads every bit over all of them; different numbers stay different.
///
/// Four Feistel rounds around the finalizer of `SplitMix64`.
fn mix(number: u128) -> u128 {
    let (mut left, mut right) = ((number >> 64) as u64, number as u64);
    for round in 1..=4_u64 {
        (left, right) = (right, left ^ split_mix(right.wrapping_add(round)));
    }
    (u128::from(left) << 64) | u128::from(right)
}

/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, figure 20 (variant 13).
fn split_mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{
        document::{changed, changed::tests::configs},
        parse,
    };

    proptest! {
        /// What is carried on is what is computed anew; and it tells configs apart.
        #[test]
        fn changes_are_carried_on(before in configs(), after in configs()) {
            let (one, other) = (Fingerprint::of(&before), Fingerprint::of(&after));
            prop_assert_eq!(one.after(&changed(&before, &after)), other);
            prop_assert_eq!(one == other, before == after);
        }
    }

    /// Weights dealt out over pools in every order: sums of plain FNV fall together here.
    #[test]
    fn what_is_swapped_is_another_config() {
        let mut seen = HashSet::new();
        let mut made = 0;
        for code in 0..4_u32.pow(5) {
            let mut text = "version = 1\n".to_owned();
            for pool in 0..5 {
                let weight = 1 + code / 4_u32.pow(pool) % 4;
                text += &format!(
                    "[pool.p{pool}]\nbackends = [{{ address = \"10.0.0.1:80\", weight = {weight} }}]\n"
                );
            }
            made += 1;
            seen.insert(Fingerprint::of(&parse("f", &text).unwrap().config));
        }
        assert_eq!(seen.len(), made);
    }

    #[test]
    fn is_the_same_tomorrow() {
        let config = parse("f", "version = 1\n[pool.a]\nbackends = [\"10.0.0.1:80\"]").unwrap().config;
        assert_eq!(Fingerprint::of(&config), Fingerprint::of(&config.clone()));
        assert_eq!(Fingerprint::of(&config).to_string().len(), 32);
    }
}
