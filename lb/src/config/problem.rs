//! What is wrong with a config file, for people and for `--json`.

use std::{borrow::Cow, fmt, path::Path};

use serde::Serialize;

/// Most problems that one report holds; the rest is counted in [`Problems::omitted`].
pub const PROBLEMS_MAX: usize = 1000;

/// Where in a file, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// Whether the config can be used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably does not say what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as it was named by the caller; control characters escaped.
    pub file: String,
    /// Where in it; `None` where the file as a whole is meant (missing, unreadable).
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Path of the key, such as `pool.api.backends[0]`; empty where the file as a whole is meant.
    pub key: String,
    /// The value as written, shortened; `None` where it is not what is wrong, or is a secret.
    pub value: Option<String>,
    /// The rule that is broken.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
    /// Whether the config can be used all the same.
    pub severity: Severity,
}

impl Problem {
    /// About the file as a whole.
    pub fn of_file(file: &Path, message: String) -> Self {
        Self {
            file: printable(&file.display().to_string()).into_owned(),
            place: None,
            key: String::new(),
            value: None,
            message,
            suggestion: None,
            severity: Severity::Error,
        }
    }

    /// About a value of a file that was read, told by its key.
    pub fn warning(file: &Path, key: String, value: &str, message: String) -> Self {
        Self {
            key,
            value: Some(format!("\"{}\"", printable(value))),
            severity: Severity::Warning,
            ..Self::of_file(file, message)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}", self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(":")?;
        }
        write!(f, " {}", self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with one file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// At most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub omitted: usize,
}

impl Problems {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.problems.len()
    }

    /// In the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.problems.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], omitted: 0 }
    }
}

/// One line each.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.omitted > 0 {
            write!(f, "\n... and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Path of a key: `prefix` ends with a dot, or is empty. A name that is not bare is quoted, and shortened.
pub(super) fn key_path(prefix: &str, name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !name.is_empty() && name.len() <= 64 && name.bytes().all(bare) {
        return format!("{prefix}{name}");
    }
    let short: String = name.chars().take(64).collect();
    format!("{prefix}{short:?}")
}

/// With control characters escaped: a report goes to terminals and logs.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character.is_control() {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_for_people_and_for_machines() {
        let problem = Problem {
            file: "edge.toml".into(),
            place: Some(Place { line: 14, column: 1 }),
            key: "vip.dns.forwrd".into(),
            value: None,
            message: "unknown key".into(),
            suggestion: Some("forward".into()),
            severity: Severity::Error,
        };
        assert_eq!(
            problem.to_string(),
            "edge.toml:14:1: vip.dns.forwrd: unknown key; did you mean `forward`?"
        );
        let json = serde_json::to_value(Problems::from(problem)).unwrap();
        assert_eq!(json["problems"][0]["line"], 14);
        assert_eq!(json["problems"][0]["column"], 1);
        assert_eq!(json["problems"][0]["severity"], "error");
        let missing = Problem::of_file(Path::new("/no\u{1b}such"), "cannot be read".into());
        assert_eq!(missing.to_string(), "/no\\u{1b}such: cannot be read");
        assert!(serde_json::to_value(missing).unwrap().get("line").is_none());
    }

    #[test]
    fn says_how_many_were_left_out() {
        let mut problems = Problems::from(Problem::of_file(Path::new("f"), "one".into()));
        problems.omitted = 7;
        assert_eq!(problems.to_string(), "f: one\n... and 7 more");
    }
}
