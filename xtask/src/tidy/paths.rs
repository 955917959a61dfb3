//! Every path a source file names, and which of its tokens are test code.

use super::lex::{Source, Token};

/// A path as written: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    /// Segments; a glob ends in `*`.
    pub(crate) segments: Vec<&'a str>,
    /// Line of its last segment.
    pub(crate) line: usize,
    /// In the scope of how many inline modules it stands.
    pub(crate) depth: usize,
    /// In test code.
    pub(crate) test: bool,
}

/// All paths of a file, also those of one segment, in order.
pub(crate) fn paths<'a>(source: &Source<'a>) -> Vec<Named<'a>> {
    let tests = test_tokens(source);
    let mut named = Vec::new();
    let mut modules: Vec<usize> = Vec::new();
    let mut braces = 0usize;
    let mut at = 0;
    while let Some(token) = source.token(at) {
        let mut found = Vec::new();
        let start = at;
        match token {
            Token::Mark('{') => {
                if at >= 2 && source.word(at - 2) == Some("mod") {
                    modules.push(braces);
                }
                braces += 1;
            }
            Token::Mark('}') => {
                braces = braces.saturating_sub(1);
                if modules.last() == Some(&braces) {
                    modules.pop();
                }
            }
            Token::Word("use") => at = tree(source, at + 1, &[], &mut found),
            Token::Word(_) => at = path(source, at, &mut found),
            _ => {}
        }
        named.extend(found.into_iter().map(|(segments, line)| Named {
            segments,
            line,
            depth: modules.len(),
            test: tests[start],
        }));
        at = at.max(start + 1);
    }
    named
}

type Found<'a> = Vec<(Vec<&'a str>, usize)>;

/// A path outside of `use`; gives the index after it.
fn path<'a>(source: &Source<'a>, start: usize, found: &mut Found<'a>) -> usize {
    let mut segments = Vec::new();
    let mut at = start;
    let mut line = 0;
    while let Some((Token::Word(word), on)) = source.tokens.get(at).copied() {
        segments.push(word);
        line = on;
        at += 1;
        if !is_colons(source, at) || source.word(at + 2).is_none() {
            break;
        }
        at += 2;
    }
    found.push((segments, line));
    at
}

/// A use tree; gives the index after it.
fn tree<'a>(source: &Source<'a>, start: usize, prefix: &[&'a str], found: &mut Found<'a>) -> usize {
    let mut segments = prefix.to_vec();
    let mut at = start;
    while let Some((token, line)) = source.tokens.get(at).copied() {
        match token {
            Token::Word("as") => at += 1,
            Token::Word(word) => {
                segments.push(word);
                at += 1;
                if !is_colons(source, at) {
                    // `use a::b as c`: the new name says nothing.
                    let renamed = source.word(at) == Some("as");
                    found.push((segments, line));
                    return if renamed { at + 2 } else { at };
                }
            }
            Token::Mark(':') => at += 1,
            Token::Mark('*') => {
                segments.push("*");
                found.push((segments, line));
                return at + 1;
            }
            Token::Mark('{') => {
                at += 1;
                while at < source.tokens.len() && !source.is_mark(at, '}') {
                    let next =
                        if source.is_mark(at, ',') { at + 1 } else { tree(source, at, &segments, found) };
                    at = next.max(at + 1);
                }
                return at + 1;
            }
            _ => return at,
        }
    }
    at
}

fn is_colons(source: &Source<'_>, at: usize) -> bool {
    source.is_mark(at, ':') && source.is_mark(at + 1, ':')
}

/// For each token, whether it belongs to an item under `#[cfg(test)]` or `#[test]`.
fn test_tokens(source: &Source<'_>) -> Vec<bool> {
    let mut tests = vec![false; source.tokens.len()];
    let mut at = 0;
    while at < source.tokens.len() {
        if !(source.is_mark(at, '#') && source.is_mark(at + 1, '[')) {
            at += 1;
            continue;
        }
        let end = closing(source, at + 1, '[', ']');
        let words: Vec<&str> = (at..end).filter_map(|index| source.word(index)).collect();
        let of_test = match words.first() {
            Some(&"test") => true,
            Some(&"cfg") => words.contains(&"test") && !words.contains(&"not"),
            _ => false,
        };
        if of_test {
            let item_end = item_end(source, end);
            tests[at..item_end].fill(true);
            at = item_end;
        } else {
            at = end;
        }
    }
    tests
}

/// The index after the item that starts at `start`: past its body, or its semicolon.
fn item_end(source: &Source<'_>, start: usize) -> usize {
    let mut at = start;
    while let Some(token) = source.token(at) {
        match token {
            Token::Mark(';') => return at + 1,
            Token::Mark('{') => return closing(source, at, '{', '}'),
            Token::Mark('(') => at = closing(source, at, '(', ')'),
            Token::Mark('[') => at = closing(source, at, '[', ']'),
            _ => at += 1,
        }
    }
    at
}

/// The index after the mark that closes the one at `start`.
fn closing(source: &Source<'_>, start: usize, open: char, close: char) -> usize {
    let mut depth = 0usize;
    for at in start..source.tokens.len() {
        if source.is_mark(at, open) {
            depth += 1;
        } else if source.is_mark(at, close) {
            depth -= 1;
            if depth == 0 {
                return at + 1;
            }
        }
    }
    source.tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<(String, usize, bool)> {
        let source = Source::read(text);
        let long = paths(&source).into_iter().filter(|named| named.segments.len() > 1);
        long.map(|named| (named.segments.join("::"), named.line, named.test)).collect()
    }

    #[test]
    fn use_trees_are_unfolded() {
        let text = "use a::{b, c::{d, e as f}, g::*,\n h::{self}};\npub(crate) use ::i::j as k;";
        let found: Vec<_> = named(text).into_iter().map(|(path, line, _)| (path, line)).collect();
        let expected =
            [("a::b", 1), ("a::c::d", 1), ("a::c::e", 1), ("a::g::*", 1), ("a::h::self", 2), ("i::j", 3)];
        assert_eq!(found, expected.map(|(path, line)| (path.to_owned(), line)));
    }

    #[test]
    fn paths_in_code_are_found_and_methods_are_not() {
        let found: Vec<_> = named("fn a() -> b::C { d::e::<f::G>(); h.i::<j::K>() }").into_iter().collect();
        let names: Vec<&str> = found.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(names, ["b::C", "d::e", "f::G", "j::K"]);
    }

    #[test]
    fn test_code_is_told_from_the_rest() {
        let text = "a::b(); #[cfg(test)] mod t { c::d(); } #[cfg(not(test))] fn f() { e::f() }\n\
                    #[test] fn g(x: [u8; 3]) { h::i() } #[cfg(all(test, unix))] use j::k; l::m();";
        let tests: Vec<_> =
            named(text).into_iter().filter(|(.., test)| *test).map(|(path, ..)| path).collect();
        assert_eq!(tests, ["c::d", "h::i", "j::k"]);
    }

    #[test]
    fn inline_modules_are_counted() {
        let source = Source::read("a::b(); mod m { fn f() { c::d() } mod n { e::f() } } g::h();");
        let depths: Vec<_> =
            paths(&source).iter().filter(|named| named.segments.len() > 1).map(|named| named.depth).collect();
        assert_eq!(depths, [0, 1, 2, 0]);
    }

    #[test]
    fn broken_source_ends() {
        for text in ["use a::{b", "use ::", "#[cfg(test)] mod", "}}}", "use {", "#[", "#[test]", "use a::{;}"]
        {
            paths(&Source::read(text));
        }
    }
}
