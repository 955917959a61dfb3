//! Paths with captures, by segment: a walk down a tree as long as the path, whatever the number of routes. It branches
//! only where a literal and a capture, or captures with different rules, stand at the same place.

use std::sync::Arc;

use super::{Asked, Entry, Rank, Slot, table::Table};
use crate::config::{Pattern, Segment, Segments};

/// What may follow the segments that lead here.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    literals: Table<Arc<Node>>,
    captures: Vec<(Option<Pattern>, Arc<Node>)>,
    /// Routes whose path ends here.
    end: Slot,
    /// Routes that take whatever follows.
    rest: Slot,
    /// No route below goes before this.
    first: Option<Rank>,
}

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.captures.is_empty() && self.end.is_empty() && self.rest.is_empty()
    }

    /// Puts a route where its path leads.
    pub(super) fn insert(&mut self, path: &Segments, entry: Entry) {
        let mut node = self;
        for segment in &path.segments {
            node.comes(&entry.rank);
            node = match segment {
                Segment::Literal(text) => Arc::make_mut(node.literals.entry(text.as_bytes()).0),
                Segment::Capture { rule, .. } => {
                    let known = node.captures.iter().position(|(known, _)| known == rule);
                    let at = known.unwrap_or(node.captures.len());
                    if known.is_none() {
                        node.captures.push((rule.clone(), Arc::default()));
                    }
                    Arc::make_mut(&mut node.captures[at].1)
                }
            };
        }
        node.comes(&entry.rank);
        let slot = if path.has_rest { &mut node.rest } else { &mut node.end };
        slot.insert(entry);
    }

    fn comes(&mut self, rank: &Rank) {
        if self.first.as_ref().is_none_or(|first| rank < first) {
            self.first = Some(rank.clone());
        }
    }

    /// Takes a route out again. What only it led to goes with it.
    pub(super) fn remove(&mut self, path: &Segments, rank: &Rank) {
        self.remove_below(&path.segments, path.has_rest, rank);
    }

    fn remove_below(&mut self, segments: &[Segment], has_rest: bool, rank: &Rank) {
        match segments.split_first() {
            None if has_rest => self.rest.remove(rank),
            None => self.end.remove(rank),
            Some((Segment::Literal(text), segments)) => {
                let Some(next) = self.literals.get_mut(text.as_bytes()) else { return };
                Arc::make_mut(next).remove_below(segments, has_rest, rank);
                if next.is_empty() {
                    self.literals.remove(text.as_bytes());
                }
            }
            Some((Segment::Capture { rule, .. }, segments)) => {
                let known = self.captures.iter_mut().find(|(known, _)| known == rule);
                let Some((_, next)) = known else { return };
                Arc::make_mut(next).remove_below(segments, has_rest, rank);
                self.captures.retain(|(_, next)| !next.is_empty());
            }
        }
    }

    /// The first route, by order, that takes the request.
    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<&Entry> {
        let mut best = None;
        let rest = asked.path.strip_prefix(b"/")?;
        self.walk(asked, Some(rest), &mut best);
        best
    }

    /// `rest` is what follows the slash behind the segments so far; `None`: the path has ended.
    fn walk<'n>(&'n self, asked: &Asked<'_>, rest: Option<&[u8]>, best: &mut Option<&'n Entry>) {
        if let (Some(best), Some(first)) = (&*best, &self.first)
            && *first > best.rank
        {
            return;
        }
        better(best, self.rest.find(asked));
        let Some(rest) = rest else { return better(best, self.end.find(asked)) };
        let (segment, rest) = match memchr::memchr(b'/', rest) {
            Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..)),
            None => (rest, None),
        };
        if let Some(next) = self.literals.get(segment) {
            next.walk(asked, rest, best);
        }
        for (rule, next) in &self.captures {
            if !segment.is_empty() && rule.as_ref().is_none_or(|rule| rule.matches(segment)) {
                next.walk(asked, rest, best);
            }
        }
    }
}

fn better<'n>(best: &mut Option<&'n Entry>, found: Option<&'n Entry>) {
    if let Some(found) = found
        && best.is_none_or(|best| found.rank < best.rank)
    {
        *best = Some(found);
    }
}
