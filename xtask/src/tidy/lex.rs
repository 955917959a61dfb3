//! Rust source as tokens and comments, each with its line: enough to tell code from text.

/// What a token is. Literals carry nothing: no rule reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// Identifier or keyword; a raw one without its `r#`.
    Word(&'a str),
    /// One character of punctuation; `::` is two.
    Mark(char),
    /// String, character or number.
    Literal,
}

/// A source file taken apart.
#[derive(Debug, Default)]
pub(crate) struct Source<'a> {
    /// Tokens with their lines, counted from 1.
    pub(crate) tokens: Vec<(Token<'a>, usize)>,
    /// Comments with the lines they start on.
    pub(crate) comments: Vec<(&'a str, usize)>,
}

impl<'a> Source<'a> {
    /// Never fails: what is no Rust gives tokens too, and the compiler complains.
    pub(crate) fn read(text: &'a str) -> Self {
        let mut lexer = Lexer { text, at: 0, line: 1 };
        let mut source = Self::default();
        while let Some(next) = lexer.peek() {
            let (start, line) = (lexer.at, lexer.line);
            if next.is_whitespace() {
                lexer.bump();
            } else if lexer.rest().starts_with("//") {
                lexer.skip_while(|character| character != '\n');
                source.comments.push((&text[start..lexer.at], line));
            } else if lexer.rest().starts_with("/*") {
                lexer.block_comment();
                source.comments.push((&text[start..lexer.at], line));
            } else {
                source.tokens.push((lexer.token(next), line));
            }
        }
        source
    }

    /// The token at an index, if there is one.
    pub(crate) fn token(&self, index: usize) -> Option<Token<'a>> {
        self.tokens.get(index).map(|(token, _)| *token)
    }

    /// Whether that mark stands at an index.
    pub(crate) fn is_mark(&self, index: usize, mark: char) -> bool {
        self.token(index) == Some(Token::Mark(mark))
    }

    /// The word at an index, if it is one.
    pub(crate) fn word(&self, index: usize) -> Option<&'a str> {
        match self.token(index) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn bump_all(&mut self, count: usize) {
        for _ in 0..count {
            self.bump();
        }
    }

    fn skip_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&keep) {
            self.bump();
        }
    }

    fn token(&mut self, next: char) -> Token<'a> {
        if let Some(prefix) = raw_string_prefix(self.rest()) {
            self.raw_string(prefix);
            return Token::Literal;
        }
        let quoted = ["b\"", "c\"", "b'"].iter().any(|prefix| self.rest().starts_with(prefix));
        if quoted || next == '"' {
            self.bump_all(usize::from(quoted));
            self.quoted();
            return Token::Literal;
        }
        if next == '\'' {
            return self.character_or_lifetime();
        }
        if next.is_ascii_digit() {
            self.skip_while(|character| character.is_alphanumeric() || character == '_');
            return Token::Literal;
        }
        if next == '_' || next.is_alphabetic() {
            if self.rest().starts_with("r#") {
                self.bump_all(2);
            }
            let start = self.at;
            self.skip_while(|character| character == '_' || character.is_alphanumeric());
            return Token::Word(&self.text[start..self.at]);
        }
        self.bump();
        Token::Mark(next)
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.bump_all(2);
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.bump_all(2);
                if depth == 0 {
                    return;
                }
            } else if self.bump().is_none() {
                return;
            }
        }
    }

    /// From the opening quote, `"` or `'`, to the closing one.
    fn quoted(&mut self) {
        let quote = self.bump();
        while let Some(next) = self.bump() {
            if next == '\\' {
                self.bump();
            } else if Some(next) == quote {
                return;
            }
        }
    }

    fn raw_string(&mut self, prefix: RawPrefix) {
        self.bump_all(prefix.len);
        let end = format!("\"{}", "#".repeat(prefix.hashes));
        while !self.rest().is_empty() && !self.rest().starts_with(&end) {
            self.bump();
        }
        self.bump_all(end.len());
    }

    /// `'a'` and `'\n'` are literals; `'a` is a lifetime, of which only the mark is kept.
    fn character_or_lifetime(&mut self) -> Token<'a> {
        let mut ahead = self.rest().chars().skip(1);
        let (first, second) = (ahead.next(), ahead.next());
        if first == Some('\\') || second == Some('\'') {
            self.quoted();
            return Token::Literal;
        }
        self.bump();
        self.skip_while(|character| character == '_' || character.is_alphanumeric());
        Token::Mark('\'')
    }
}

struct RawPrefix {
    /// Characters up to and with the quote.
    len: usize,
    hashes: usize,
}

/// `r"`, `r#"`, `br##"`, `cr"`; not the raw identifier `r#type`.
fn raw_string_prefix(text: &str) -> Option<RawPrefix> {
    let letters = ["br", "cr", "r"].iter().find(|letters| text.starts_with(**letters))?.len();
    let hashes = text[letters..].chars().take_while(|&character| character == '#').count();
    text[letters + hashes..].starts_with('"').then_some(RawPrefix { len: letters + hashes + 1, hashes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let source = Source::read(text);
        (0..source.tokens.len()).filter_map(|at| source.word(at)).map(str::to_owned).collect()
    }

    #[test]
    fn text_is_no_code() {
        let text = r####"
            a /* b /* c */ d */ e // f
            "g \" h" r"i" r#"j " k"# b"l" 'm' '\'' b'n' '"' o
        "####;
        assert_eq!(words(text), ["a", "e", "o"]);
    }

    #[test]
    fn lifetimes_are_no_characters() {
        assert_eq!(words("fn a<'b>(c: &'b str) -> &'static d {}"), ["fn", "a", "c", "str", "d"]);
    }

    #[test]
    fn raw_identifiers_lose_their_prefix() {
        assert_eq!(words("r#type + rest + brook"), ["type", "rest", "brook"]);
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let source = Source::read("a\n\"b\nc\"\n/* d\n*/ e\n// f\n");
        assert_eq!(source.tokens.last(), Some(&(Token::Word("e"), 5)));
        assert_eq!(source.comments, [("/* d\n*/", 4), ("// f", 6)]);
    }

    #[test]
    fn unfinished_text_ends() {
        for text in ["\"a", "r#\"a", "/* a", "'", "'\\", "b'", "0x"] {
            Source::read(text);
        }
    }
}
