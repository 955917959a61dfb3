//! The text of a config file: places in it, excerpts of it, and how deep it nests.

use std::ops::Range;

use toml_parser::lexer::TokenKind;

use crate::config::problem::{Place, printable};

/// Most dots in one key. No key of ours has more than three; the TOML reader bounds brackets itself, but not
/// dotted keys, and a tree of a million levels would overflow the stack when it is dropped.
const KEY_DOTS_MAX: usize = 8;

/// Most tokens in a file: a full deny list has half as many. The TOML reader keeps every error it recovers from,
/// and a file of nothing else would take gigabytes.
const TOKENS_MAX: usize = 1 << 20;

/// Longest excerpt of a value in a message, in characters.
const EXCERPT_CHARS_MAX: usize = 60;

/// A file's text with its name.
pub(super) struct Source<'a> {
    pub(super) name: String,
    pub(super) text: &'a str,
    /// Offset of each line's first byte.
    lines: Vec<usize>,
    /// Whether a line of it means anything to whoever wrote it.
    has_places: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &str, text: &'a str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        // The mark at the start of a file takes no column.
        let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let lines = std::iter::once(first).chain(starts).collect();
        Self { name: printable(name).into_owned(), text, lines, has_places: true }
    }

    /// Text that nobody wrote so: excerpts of it mean something, lines and columns do not.
    pub(super) fn without_places(name: &str, text: &'a str) -> Self {
        Self { has_places: false, ..Self::new(name, text) }
    }

    /// Line of a byte offset, counted from 0.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Line and column of a byte offset; an offset beyond the text is its end.
    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.line(offset);
        let start = self.lines.get(line).copied().unwrap_or(0);
        let end = offset.clamp(start, self.text.len().max(start));
        let column = self.text.get(start..end).map_or(end - start, |before| before.chars().count());
        Place { line: line + 1, column: column + 1 }
    }

    /// The same for a problem; `None` where nobody could find it.
    pub(super) fn place_to_tell(&self, offset: usize) -> Option<Place> {
        self.has_places.then(|| self.place(offset))
    }

    /// The text of a span for a message: its first line, shortened, printable.
    pub(super) fn excerpt(&self, span: &Range<usize>) -> String {
        let text = self.text.get(span.clone()).unwrap_or("");
        let first = text.lines().next().unwrap_or("");
        let mut excerpt: String = first.chars().take(EXCERPT_CHARS_MAX).collect();
        if excerpt.len() < text.len() {
            excerpt.push_str("...");
        }
        printable(&excerpt).into_owned()
    }

    /// Where and why the text is too much to be parsed: a key with more dots than any of ours, or too many tokens.
    ///
    /// Runs over the tokens of the same lexer that the TOML reader uses, so both agree on what is a string.
    pub(super) fn excess(&self) -> Option<(usize, &'static str)> {
        let mut dots = 0;
        for (index, token) in toml_parser::Source::new(self.text).lex().enumerate() {
            match token.kind() {
                TokenKind::Dot => dots += 1,
                TokenKind::Atom
                | TokenKind::Whitespace
                | TokenKind::BasicString
                | TokenKind::LiteralString
                | TokenKind::MlBasicString
                | TokenKind::MlLiteralString => {}
                _ => dots = 0,
            }
            if dots > KEY_DOTS_MAX {
                return Some((token.span().start(), "a key has more dots than any key could"));
            }
            if index >= TOKENS_MAX {
                return Some((token.span().start(), "holds more than a million words and signs"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let source = Source::new("f", "a\nßb = 1\n\n");
        let place = |offset| {
            let Place { line, column } = source.place(offset);
            (line, column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(2), (2, 1));
        assert_eq!(place(4), (2, 2));
        assert_eq!(place(9), (2, 7));
        assert_eq!(place(10), (3, 1));
        assert_eq!(place(11), (4, 1));
        assert_eq!(place(usize::MAX), (4, 1));
        assert_eq!(Source::new("f", "\u{feff}a").place(3), Place { line: 1, column: 1 });
        assert_eq!(Source::new("f", "").place(0), Place { line: 1, column: 1 });
    }

    #[test]
    fn excerpts_are_short_and_printable() {
        let source = Source::new("f", "\u{1b}[31m\nnext");
        assert_eq!(source.excerpt(&(0..source.text.len())), "\\u{1b}[31m...");
        let long = "x".repeat(100);
        assert_eq!(Source::new("f", &long).excerpt(&(0..100)), "x".repeat(60) + "...");
        assert_eq!(source.excerpt(&(5..1000)), "");
    }

    #[test]
    fn dots_count_only_within_one_key() {
        let deep = |text: &str| Source::new("f", text).excess().map(|(offset, _)| offset);
        assert_eq!(deep("a.b.c.d = 1.5\n\"x.x.x.x.x.x.x.x.x.x\" = '1.1.1.1.1.1.1.1.1'"), None);
        assert_eq!(deep("[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]"), None);
        assert_eq!(deep("a.a.a.a.a.a.a.a.a.a = 1"), Some(17));
        assert_eq!(deep(&"=\n".repeat(TOKENS_MAX)), Some(TOKENS_MAX));
        assert_eq!(deep(&"=\n".repeat(TOKENS_MAX / 2 - 1)), None);
        assert_eq!(deep("x = { a . a.a.a. \"a\" .a.a.a.a.a = 1 }"), Some(29));
    }
}
