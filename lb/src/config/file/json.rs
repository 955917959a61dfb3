//! The same schema as JSON: a document of the API, read by the reader of the file.
//!
//! The document is written out compactly, once, and every value gets its span there: problems then quote it, and stand
//! in its order, as those of a file do. What TOML cannot say (null, a tree of any depth) is refused before it is read.

use std::{borrow::Cow, ops::Range, path::Path};

use serde_json::Value;
use serde_spanned::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{
    FILE_BYTES_MAX, Findings, Loaded, judge, named,
    notes::{DocumentSize, VALUES_MAX},
    reader::{Fault, Show, Table},
    route::RouteDraft,
    schema,
    source::Source,
    too_large,
    unread::Unread,
};
use crate::config::{
    Digest, Route,
    problem::{PROBLEMS_MAX, Problem, Problems, Severity, key_path},
};

/// Most tables and arrays within each other. The schema has eight at most.
const DEPTH_MAX: usize = 32;

/// Reads a config from JSON of the same schema. Pure; `name` is what problems call the document.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document (keys by name), without lines and columns.
pub fn read_json(name: &str, document: &Value) -> Result<Loaded, Problems> {
    read_beside(name, document, Unread::default())
}

/// The same of one without some routes.
pub(super) fn read_beside(name: &str, document: &Value, unread: Unread) -> Result<Loaded, Problems> {
    let whole = |message| Problems::from(Problem::of_file(Path::new(name), message));
    let Value::Object(entries) = document else {
        return Err(whole(format!("must be a table; this is {}", kind(document))));
    };
    let mut draft = Draft::default();
    draft.table(entries, &Trail::top()).map_err(|refusal| match refusal {
        Refusal::Large => whole(too_large()),
        Refusal::Many => whole("holds more than a million values".to_owned()),
        Refusal::Deep(key) => {
            let message = format!("lies deeper than any key could: more than {DEPTH_MAX} tables and arrays");
            Problems::from(Problem { key, ..Problem::of_file(Path::new(name), message) })
        }
    })?;
    let Draft { text, spans, nulls, .. } = draft;
    let size = DocumentSize { bytes: text.len(), values: spans.len() };
    let findings = Findings::new(Source::without_places(name, &text));
    if !nulls.is_empty() {
        for (key, span) in nulls {
            let fault = Fault::new("has no meaning here; a key without a value is left out");
            findings.report(&key, &span, Show::Value, Severity::Error, fault);
        }
        return Err(findings.finish().err().unwrap_or_default());
    }
    let mut spans = spans.into_iter();
    // The table itself came first.
    spans.next();
    let table = tree_of_table(entries, &text, &mut spans);
    judge(name, findings, &table, Digest::of(text.as_bytes()), size, unread)
}

/// The routes of a document that has nothing else, not checked against anything; `None` where anything is wrong with
/// them.
pub(super) fn read_routes(document: &Value) -> Option<(Vec<Route>, DocumentSize)> {
    let mut draft = Draft::default();
    let entries = document.as_object()?;
    draft.table(entries, &Trail::top()).ok()?;
    let Draft { text, spans, nulls, .. } = draft;
    let size = DocumentSize { bytes: text.len(), values: spans.len() };
    let findings = Findings::new(Source::without_places("routes", &text));
    let mut spans = spans.into_iter();
    spans.next();
    let table = tree_of_table(entries, &text, &mut spans);
    let top = Table::top(&findings, &table, &schema::TOP);
    let drafts = named(&top, "route", &schema::ROUTE, &findings, RouteDraft::read);
    drop(top);
    let is_sound = nulls.is_empty() && findings.finish().is_ok();
    let routes = drafts.into_iter().map(RouteDraft::build).collect::<Option<_>>()?;
    is_sound.then_some((routes, size))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}

enum Refusal {
    Large,
    Many,
    Deep(String),
}

/// The way to a value; its path is made only where somebody is told of it.
struct Trail<'a> {
    above: Option<&'a Trail<'a>>,
    step: Step<'a>,
    depth: usize,
}

enum Step<'a> {
    Top,
    Key(&'a str),
    Item(usize),
}

impl<'a> Trail<'a> {
    fn top() -> Self {
        Self { above: None, step: Step::Top, depth: 0 }
    }

    fn to(&'a self, step: Step<'a>) -> Trail<'a> {
        Trail { above: Some(self), step, depth: self.depth + 1 }
    }

    fn path(&self) -> String {
        let above = self.above.map(Trail::path).unwrap_or_default();
        match self.step {
            Step::Top => above,
            Step::Key(name) if above.is_empty() => key_path("", name),
            Step::Key(name) => key_path(&format!("{above}."), name),
            Step::Item(index) => format!("{above}[{index}]"),
        }
    }
}

/// The text as it grows, and where in it each key and value is, in the order of the walk.
#[derive(Default)]
struct Draft {
    text: String,
    spans: Vec<Range<usize>>,
    /// Values that are null, as many as are told.
    nulls: Vec<(String, Range<usize>)>,
}

impl Draft {
    fn value(&mut self, value: &Value, trail: &Trail<'_>) -> Result<(), Refusal> {
        match value {
            Value::Object(entries) => self.table(entries, trail),
            Value::Array(items) => self.array(items, trail),
            Value::Null => {
                let span = self.scalar(value)?;
                if self.nulls.len() < PROBLEMS_MAX {
                    self.nulls.push((trail.path(), span));
                }
                Ok(())
            }
            scalar => self.scalar(scalar).map(drop),
        }
    }

    fn table(&mut self, entries: &serde_json::Map<String, Value>, trail: &Trail<'_>) -> Result<(), Refusal> {
        let place = self.open('{', trail)?;
        for (index, (key, value)) in entries.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            let from = self.text.len();
            self.push(key)?;
            self.spans.push(from..self.text.len());
            self.text.push(':');
            self.value(value, &trail.to(Step::Key(key)))?;
        }
        self.close(place, '}');
        Ok(())
    }

    fn array(&mut self, items: &[Value], trail: &Trail<'_>) -> Result<(), Refusal> {
        let place = self.open('[', trail)?;
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.value(item, &trail.to(Step::Item(index)))?;
        }
        self.close(place, ']');
        Ok(())
    }

    fn open(&mut self, mark: char, trail: &Trail<'_>) -> Result<usize, Refusal> {
        if trail.depth > DEPTH_MAX {
            return Err(Refusal::Deep(trail.path()));
        }
        if self.spans.len() >= VALUES_MAX {
            return Err(Refusal::Many);
        }
        self.spans.push(self.text.len()..self.text.len());
        self.text.push(mark);
        Ok(self.spans.len() - 1)
    }

    fn close(&mut self, place: usize, mark: char) {
        self.text.push(mark);
        if let Some(span) = self.spans.get_mut(place) {
            span.end = self.text.len();
        }
    }

    fn scalar(&mut self, value: &Value) -> Result<Range<usize>, Refusal> {
        if self.spans.len() >= VALUES_MAX {
            return Err(Refusal::Many);
        }
        let from = self.text.len();
        match value {
            Value::String(text) => self.push(text)?,
            other => self.text.push_str(&other.to_string()),
        }
        self.spans.push(from..self.text.len());
        Ok(from..self.text.len())
    }

    /// A string with its quotes.
    fn push(&mut self, text: &str) -> Result<(), Refusal> {
        if self.text.len() + text.len() > FILE_BYTES_MAX {
            return Err(Refusal::Large);
        }
        let is_plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
        match is_plain {
            true => {
                self.text.push('"');
                self.text.push_str(text);
                self.text.push('"');
            }
            false => self.text.push_str(&Value::from(text).to_string()),
        }
        Ok(())
    }
}

type Spans = std::vec::IntoIter<Range<usize>>;

/// The reader's tree, in the same order as the walk that wrote the text.
fn tree_of_table<'t>(
    entries: &'t serde_json::Map<String, Value>,
    text: &'t str,
    spans: &mut Spans,
) -> DeTable<'t> {
    let mut table = DeTable::new();
    for (key, value) in entries {
        let key = Spanned::new(spans.next().unwrap_or_default(), Cow::Borrowed(key.as_str()));
        table.insert(key, tree(value, text, spans));
    }
    table
}

fn tree<'t>(value: &'t Value, text: &'t str, spans: &mut Spans) -> Spanned<DeValue<'t>> {
    let span = spans.next().unwrap_or_default();
    let node = match value {
        Value::String(text) => DeValue::String(Cow::Borrowed(text)),
        Value::Bool(value) => DeValue::Boolean(*value),
        Value::Array(items) => {
            let mut array = DeArray::new();
            items.iter().for_each(|item| array.push(tree(item, text, spans)));
            DeValue::Array(array)
        }
        Value::Object(entries) => DeValue::Table(tree_of_table(entries, text, spans)),
        // JSON's numbers are TOML's, but for what only the TOML reader can make of their text.
        Value::Number(_) => number(text.get(span.clone()).unwrap_or_default()),
        // Refused before.
        Value::Null => DeValue::String(Cow::Borrowed("null")),
    };
    Spanned::new(span, node)
}

fn number(text: &str) -> DeValue<'_> {
    DeValue::parse(text).map_or(DeValue::String(Cow::Borrowed(text)), Spanned::into_inner)
}
