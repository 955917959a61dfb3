//! Walks the parsed document by the schema and writes down everything that is wrong with it.
//!
//! Nothing here stops at an error: a value that cannot be read is `None`, and its problem is in [`Findings`].

use std::{borrow::Cow, ops::Range, sync::Arc};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) use super::findings::{At, Fault, Findings, Show};
use super::{schema::Choices, shape::Keys, suggest};
use crate::config::problem::{Severity, key_path};

/// A table whose keys were checked against its schema.
pub(super) struct Table<'t> {
    findings: &'t Findings<'t>,
    /// Path with a trailing dot, empty at the top.
    prefix: String,
    entries: &'t DeTable<'t>,
    /// Of the header.
    pub(super) span: Range<usize>,
}

impl<'t> Table<'t> {
    pub(super) fn top(findings: &'t Findings<'t>, entries: &'t DeTable<'t>, keys: &Keys) -> Self {
        let table = Self { findings, prefix: String::new(), entries, span: 0..0 };
        table.check(keys);
        table
    }

    /// Reports keys that are unknown or not supported yet.
    fn check(&self, keys: &Keys) {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if keys.supports(name) {
                continue;
            }
            let fault = match keys.later.contains(&name) {
                true => Fault::later(),
                false => Fault::new("unknown key").suggest(self.findings.near(name, keys.names())),
            };
            self.findings.report(&self.path(name), &key.span(), Show::KeyOnly, Severity::Error, fault);
        }
    }

    fn path(&self, name: &str) -> String {
        key_path(&self.prefix, name)
    }

    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every entry, in the order of the names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t Spanned<Cow<'t, str>>, Value<'t>)> {
        self.entries.iter().map(|(key, node)| {
            let path = self.path(key.get_ref()).into();
            (key, Value { findings: self.findings, path, node })
        })
    }

    /// What stands under a key.
    pub(super) fn value(&self, key: &str) -> Option<Value<'t>> {
        let node = self.entries.get(key)?;
        Some(Value { findings: self.findings, path: self.path(key).into(), node })
    }

    /// The same; its absence is an error.
    pub(super) fn required(&self, key: &str, rule: &str) -> Option<Value<'t>> {
        let value = self.value(key);
        if value.is_none() && self.findings.is_whole() {
            let fault = Fault::new(format!("missing: {rule}"));
            self.findings.report(&self.path(key), &self.span, Show::KeyOnly, Severity::Error, fault);
        }
        value
    }

    /// The table under a key, where there is one.
    pub(super) fn table(&self, key: &str, keys: &Keys) -> Option<Table<'t>> {
        self.value(key)?.table(keys)
    }
}

/// One value of the document.
#[derive(Clone)]
pub(super) struct Value<'t> {
    findings: &'t Findings<'t>,
    path: Arc<str>,
    node: &'t Spanned<DeValue<'t>>,
}

impl<'t> Value<'t> {
    /// Its path, for messages.
    pub(super) fn key(&self) -> &str {
        &self.path
    }

    /// Reports an error about this value.
    pub(super) fn fault(&self, fault: Fault) {
        self.findings.report(&self.path, &self.node.span(), Show::Value, Severity::Error, fault);
    }

    /// A value in its place.
    pub(super) fn at<T>(&self, value: T) -> At<T> {
        At { value, key: self.path.clone(), span: self.node.span() }
    }

    fn wrong_type(&self, rule: &str) {
        let article = match self.node.get_ref() {
            DeValue::Integer(_) | DeValue::Array(_) => "an",
            _ => "a",
        };
        self.fault(Fault::new(format!("{rule}; this is {article} {}", self.node.get_ref().type_str())));
    }

    /// The string.
    pub(super) fn as_str(&self) -> Option<&'t str> {
        self.node.get_ref().as_str()
    }

    /// Whether it is an array.
    pub(super) fn is_array(&self) -> bool {
        self.node.get_ref().is_array()
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        self.node.get_ref().is_table()
    }

    /// A string that `parse` understands. `rule` is the answer to other types.
    pub(super) fn parsed<T>(
        &self,
        rule: &str,
        parse: impl FnOnce(&'t str) -> Result<T, Fault>,
    ) -> Option<At<T>> {
        let Some(text) = self.as_str() else {
            self.wrong_type(rule);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(self.at(value)),
            Err(fault) => {
                self.fault(fault);
                None
            }
        }
    }

    /// As [`Self::parsed`], for values that no message may show.
    pub(super) fn parsed_secret<T>(
        &self,
        rule: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let parsed = self.as_str().ok_or_else(|| Fault::new(rule)).and_then(parse);
        parsed
            .map_err(|fault| {
                let span = self.node.span();
                self.findings.report(&self.path, &span, Show::KeyOnly, Severity::Error, fault);
            })
            .ok()
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &Choices<T>) -> Option<At<T>> {
        let names = || choices.supported.iter().map(|(name, _)| *name);
        let rule = format!("must be one of {}", quoted(names()));
        self.parsed(&rule, |text| choose(text, choices))
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, bounds: Range<u64>) -> Option<At<u64>> {
        self.integer_or("must be a whole number", bounds)
    }

    /// The same, with an own answer to other types.
    pub(super) fn integer_or(&self, rule: &str, bounds: Range<u64>) -> Option<At<u64>> {
        let DeValue::Integer(number) = self.node.get_ref() else {
            self.wrong_type(rule);
            return None;
        };
        match i128::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| u64::try_from(n).ok()) {
            Some(number) if bounds.contains(&number) => Some(self.at(number)),
            _ => {
                let (first, last) = (bounds.start, bounds.end - 1);
                self.fault(Fault::new(format!("must be a whole number from {first} to {last}")));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let DeValue::Boolean(value) = self.node.get_ref() else {
            self.wrong_type("must be true or false");
            return None;
        };
        Some(*value)
    }

    /// Items of an array that is not empty.
    pub(super) fn items(&self, rule: &str) -> Option<Vec<Value<'t>>> {
        let items = self.items_or_none(rule)?;
        if items.is_empty() {
            self.fault(Fault::new(format!("must not be empty: {rule}")));
            return None;
        }
        Some(items)
    }

    /// Items of an array.
    pub(super) fn items_or_none(&self, rule: &str) -> Option<Vec<Value<'t>>> {
        let Some(array) = self.node.get_ref().as_array() else {
            self.wrong_type(rule);
            return None;
        };
        let item = |(index, node)| {
            let path = format!("{}[{index}]", self.path).into();
            Value { findings: self.findings, path, node }
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// A table with these keys.
    pub(super) fn table(&self, keys: &Keys) -> Option<Table<'t>> {
        let table = self.any_table()?;
        table.check(keys);
        Some(table)
    }

    /// A table with names of the operator's choosing.
    pub(super) fn any_table(&self) -> Option<Table<'t>> {
        let Some(entries) = self.node.get_ref().as_table() else {
            self.wrong_type("must be a table");
            return None;
        };
        let prefix = format!("{}.", self.path);
        Some(Table { findings: self.findings, prefix, entries, span: self.node.span() })
    }
}

/// The meaning of a word.
pub(super) fn choose<T: Copy>(text: &str, choices: &Choices<T>) -> Result<T, Fault> {
    if let Some((_, value)) = choices.supported.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    if choices.later.contains(&text) {
        return Err(Fault::later());
    }
    let names = || choices.supported.iter().map(|(name, _)| *name);
    let near = suggest::closest(text, names().chain(choices.later.iter().copied()));
    Err(Fault::new(format!("must be one of {}", quoted(names()))).suggest(near))
}

fn quoted<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
