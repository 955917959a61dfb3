//! What was found wrong, with its place; told in the order of the file, and bounded: a hostile file has a million faults.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::BTreeSet,
    ops::Range,
    sync::Arc,
};

use super::{source::Source, suggest};
use crate::config::problem::{PROBLEMS_MAX, Problem, Problems, Severity, printable};

/// What is wrong with a value, without its place.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) message: Cow<'static, str>,
    pub(super) suggestion: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), suggestion: None }
    }

    pub(super) fn later() -> Self {
        Self::new("not supported yet")
    }

    pub(super) fn suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }
}

/// A value that was read, with the place it was read from.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) key: Arc<str>,
    pub(super) span: Range<usize>,
}

/// Whether the value is part of the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Value,
    KeyOnly,
}

/// Everything that was found wrong so far.
pub(super) struct Findings<'a> {
    pub(super) source: Source<'a>,
    /// Whether the document was read to its end without a syntax error. Where it was not, nothing is said
    /// about what seems to be missing.
    whole: bool,
    /// Lines with a syntax error: what their remains look like is not reported.
    torn_lines: BTreeSet<usize>,
    found: RefCell<Vec<(Range<usize>, Problem)>>,
    /// Problems that were not even written down.
    omitted: Cell<usize>,
    /// Suggestions that may still be looked for.
    suggestions_left: Cell<usize>,
}

/// Most problems that are written down before the first [`PROBLEMS_MAX`] of them by place are told; a hostile file has
/// a million.
const WRITTEN_MAX: usize = 8 * PROBLEMS_MAX;
/// Most suggestions that are looked for: one costs up to ten milliseconds.
const SUGGESTIONS_MAX: usize = 100;

impl<'a> Findings<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        Self {
            source,
            whole: true,
            torn_lines: BTreeSet::new(),
            found: RefCell::default(),
            omitted: Cell::new(0),
            suggestions_left: Cell::new(SUGGESTIONS_MAX),
        }
    }

    /// Takes over what the TOML reader says; of several errors in one line the first.
    pub(super) fn syntax(&mut self, errors: &[toml::de::Error]) {
        let mut seen = BTreeSet::new();
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            if error.message() == "duplicate key" {
                // Said twice by the reader where a table's parent is at fault.
                if seen.insert(span.start) {
                    let key = self.source.excerpt(&span);
                    self.report(&key, &span, Show::KeyOnly, Severity::Error, Fault::new("duplicate key"));
                }
                continue;
            }
            self.whole = false;
            if self.torn_lines.insert(self.source.line(span.start)) {
                let message = format!("syntax error: {}", printable(error.message()));
                self.found.borrow_mut().push((span.clone(), self.problem("", None, Fault::new(message))));
            }
        }
    }

    /// Whether missing things may be called missing.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn report(
        &self,
        key: &str,
        span: &Range<usize>,
        show: Show,
        severity: Severity,
        fault: Fault,
    ) {
        // The TOML reader leaves a value without a place where it could not read one.
        let is_stand_in = !self.whole && span.is_empty();
        if is_stand_in || self.torn_lines.contains(&self.source.line(span.start)) {
            return;
        }
        // Beside an error no warning is told, so one must not take its room.
        if self.found.borrow().len() >= WRITTEN_MAX && severity == Severity::Error {
            return self.omitted.set(self.omitted.get() + 1);
        }
        let value = (show == Show::Value).then(|| self.source.excerpt(span));
        let problem = Problem { severity, ..self.problem(key, value, fault) };
        self.found.borrow_mut().push((span.clone(), problem));
    }

    /// What a name probably meant, as long as anybody would read it.
    pub(super) fn near<'c>(
        &self,
        name: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Option<String> {
        let left = self.suggestions_left.get().checked_sub(1)?;
        self.suggestions_left.set(left);
        suggest::closest(name, candidates)
    }

    /// An error about a value that was read well, but does not fit the rest.
    pub(super) fn error<T>(&self, at: &At<T>, fault: Fault) {
        self.report(&at.key, &at.span, Show::Value, Severity::Error, fault);
    }

    fn problem(&self, key: &str, value: Option<String>, fault: Fault) -> Problem {
        Problem {
            file: self.source.name.clone(),
            place: None,
            key: key.to_owned(),
            value,
            message: fault.message.into_owned(),
            suggestion: fault.suggestion,
            severity: Severity::Error,
        }
    }

    /// In the order of the file: errors where there are any, else warnings. Beside errors no warning is given:
    /// it often is their consequence (a misspelt reference leaves a pool unused).
    pub(super) fn finish(self) -> Result<Problems, Problems> {
        let mut found = self.found.into_inner();
        found.sort_by(|(a, problem_a), (b, problem_b)| {
            (a.start, &problem_a.key, &problem_a.message).cmp(&(b.start, &problem_b.key, &problem_b.message))
        });
        found.dedup();
        let is_refused = found.iter().any(|(_, problem)| problem.severity == Severity::Error);
        if is_refused {
            found.retain(|(_, problem)| problem.severity == Severity::Error);
        }
        let omitted = found.len().saturating_sub(PROBLEMS_MAX) + self.omitted.get();
        found.truncate(PROBLEMS_MAX);
        // Places are found only now: counting characters of a huge line is not free.
        let problems = found
            .into_iter()
            .map(|(span, problem)| Problem { place: self.source.place_to_tell(span.start), ..problem })
            .collect();
        let problems = Problems { problems, omitted };
        if is_refused { Err(problems) } else { Ok(problems) }
    }
}
