//! Paths with captures, by segment: a walk down a tree as long as the path, whatever the number of routes. It branches
//! only where a literal and a capture, or captures with different rules, stand at the same place.

use super::{Asked, Slot, Table};
use crate::{
    config::{Pattern, Segment, Segments},
    model::RouteId,
};

/// What may follow the segments that lead here.
#[derive(Debug, Default)]
pub(super) struct Node {
    literals: Table<Node>,
    captures: Vec<(Option<Pattern>, Node)>,
    /// Routes whose path ends here.
    end: Slot,
    /// Routes that take whatever follows.
    rest: Slot,
    /// The first route below.
    first: Option<RouteId>,
}

impl Node {
    /// Where a route with this path belongs. `route` comes behind all that were put in before.
    pub(super) fn slot(&mut self, path: &Segments, route: RouteId) -> &mut Slot {
        let mut node = self;
        for segment in &path.segments {
            node.first.get_or_insert(route);
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.as_bytes().into()).or_default(),
                Segment::Capture { rule, .. } => {
                    let known = node.captures.iter().position(|(known, _)| known == rule);
                    let at = known.unwrap_or(node.captures.len());
                    if known.is_none() {
                        node.captures.push((rule.clone(), Self::default()));
                    }
                    &mut node.captures[at].1
                }
            };
        }
        node.first.get_or_insert(route);
        if path.has_rest { &mut node.rest } else { &mut node.end }
    }

    /// The first route, by order, that takes the request.
    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        let mut best = None;
        let rest = asked.path.strip_prefix(b"/")?;
        self.walk(asked, Some(rest), &mut best);
        best
    }

    /// `rest` is what follows the slash behind the segments so far; `None`: the path has ended.
    fn walk(&self, asked: &Asked<'_>, rest: Option<&[u8]>, best: &mut Option<RouteId>) {
        let is_later =
            |best: &Option<RouteId>| best.is_some_and(|best| self.first.is_none_or(|first| first > best));
        if is_later(best) {
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

fn better(best: &mut Option<RouteId>, found: Option<RouteId>) {
    if let Some(found) = found
        && best.is_none_or(|best| found < best)
    {
        *best = Some(found);
    }
}
