//! A regular expression, for whole values or anywhere within.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use regex::bytes::{Regex, RegexBuilder};

/// Bytes that one compiled expression may take, and as much again for what it learns while matching.
const BYTES_MAX: usize = 128 << 10;

/// Equal where the text is. A clone shares the program and has scratch memory of its own.
///
/// Whoever makes one is the owner of its scratch memory (`regex_automata::util::pool`): the owner writes to it at every
/// match what all others read, and these have stacks of it by thread. So a thread that matches now and then makes those
/// that workers share.
#[derive(Debug)]
pub struct Pattern {
    text: Arc<str>,
    regex: Regex,
}

impl Pattern {
    /// One that a whole value must match. `.` and classes are about bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        Self::compile(text, |text| format!(r"\A(?:{text})\z"))
    }

    /// One that must match somewhere.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn within(text: &str) -> Result<Self, String> {
        Self::compile(text, str::to_owned)
    }

    fn compile(text: &str, whole: impl Fn(&str) -> String) -> Result<Self, String> {
        let compile = |text: &str| {
            RegexBuilder::new(text).unicode(false).size_limit(BYTES_MAX).dfa_size_limit(BYTES_MAX).build()
        };
        // By itself first: an unbalanced bracket must not find its partner in ours.
        let regex = compile(text).and_then(|_| compile(&whole(text))).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "takes too much memory".to_owned(),
            // Several lines that draw the place; the last one says what it is.
            error => {
                error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        })?;
        Ok(Self { text: text.into(), regex }.owned())
    }

    /// The first match makes the owner.
    fn owned(self) -> Self {
        self.regex.is_match(b"");
        self
    }

    /// As it is written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether a value matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }
}

impl Clone for Pattern {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), regex: self.regex.clone() }.owned()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn the_whole_value_matches_or_nothing_does() {
        let pattern = Pattern::new("a|bc+").unwrap();
        assert!(pattern.matches(b"a") && pattern.matches(b"bcc"));
        assert!(!pattern.matches(b"ab") && !pattern.matches(b"xa") && !pattern.matches(b"a\n"));
        assert!(Pattern::new("(?i)firefox/.*").unwrap().matches(b"FireFox/\xff"));
        assert!(Pattern::within("b+").unwrap().matches(b"abc"));
        assert_eq!(Pattern::new("a"), Pattern::new("a"));
        assert_ne!(Pattern::new("a"), Pattern::new("b"));
    }

    #[test]
    fn what_is_wrong_is_said_in_a_line() {
        for (text, said) in [
            ("a)|(b", "unopened group"),
            ("(", "unclosed group"),
            ("[z-a]", "invalid character class range"),
            ("(?:a{1000}){1000}", "takes too much memory"),
        ] {
            let error = Pattern::new(text).unwrap_err();
            assert!(error.contains(said) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
