//! The audit log: who changed what, when, and with which result. One line of JSON for each change, on the disk before the
//! answer.
//!
//! ```text
//! {"when_ns":1,"by":"api","uid":0,"pid":7,"what":"merge pool.api","result":"applied","generation":8,
//!  "changed":[{"key":"pool.api.health.fall","before":3,"after":4}]}
//! ```

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{disk::Disk, record::Author};
use crate::{config::Difference, model::Generation};

const FILE: &str = "audit.log";
/// Largest log, in bytes, before another one is begun; as many old ones as [`OLD_FILES`] are kept.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// `audit.log.1` is the youngest of them.
const OLD_FILES: u32 = 3;
/// Longest value in a line, in characters of its JSON.
const VALUE_CHARS_MAX: usize = 256;
/// Longest word on what was asked or why it was refused.
const TEXT_CHARS_MAX: usize = 1024;
/// Most differences in a line; how many more there were is said.
const DIFFERENCES_MAX: usize = 100;

/// Names of fields whose values are nobody's business, wherever they stand in a config.
const SECRET_FIELDS: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"];

/// One change.
#[derive(Clone, Debug)]
pub struct AuditEntry<'a> {
    /// When it was asked for, in nanoseconds since 1970.
    pub when_ns: u64,
    /// By whom.
    pub author: &'a Author,
    /// What was asked, such as `merge pool.api`.
    pub what: &'a str,
    /// What came of it.
    pub outcome: Outcome<'a>,
    /// What differs by it.
    pub differences: &'a [Difference],
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It holds, by this generation; `None`: it is of no generation, such as a drain.
    Applied(Option<Generation>),
    /// It does not, and why.
    Refused(&'a str),
}

#[derive(Serialize)]
struct Line<'a> {
    when_ns: u64,
    #[serde(flatten)]
    author: &'a Author,
    what: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<Generation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    changed: Vec<Difference>,
    #[serde(skip_serializing_if = "is_none")]
    omitted: usize,
}

fn is_none(omitted: &usize) -> bool {
    *omitted == 0
}

/// The log of one state directory.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    /// Whether it ends in the middle of a line: the disk was full, or the host went down.
    is_torn: bool,
}

impl Audit {
    /// Opens the log of a state directory, made where there is none.
    ///
    /// # Errors
    /// It cannot be made or read; the message names the file.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        Self::with_bound(state_dir, FILE_BYTES_MAX)
    }

    fn with_bound(state_dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        Disk::make_directory(state_dir).map_err(named)?;
        let (file, bytes, is_torn) = begin(&path).map_err(named)?;
        File::open(state_dir)?.sync_all()?;
        Ok(Self { path, file, bytes, bytes_max, is_torn })
    }

    /// Writes a change down. It is on the disk when this returns.
    ///
    /// # Errors
    /// The disk refuses; the next line begins on its own all the same.
    pub fn append(&mut self, entry: &AuditEntry<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Line::of(entry))?;
        line.push(b'\n');
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        if self.is_torn {
            line.insert(0, b'\n');
        }
        // One call: a line of two writers would be two lines. What is torn is mended by the next one.
        match self.file.write(&line) {
            Ok(length) => {
                self.bytes += length as u64;
                self.is_torn = length < line.len() && length > 0;
                if length < line.len() {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            Err(error) => return Err(error),
        }
        self.file.sync_data()
    }

    fn rotate(&mut self) -> io::Result<()> {
        let old = |number: u32| self.path.with_extension(format!("log.{number}"));
        for number in (1..OLD_FILES).rev() {
            match fs::rename(old(number), old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, old(1))?;
        (self.file, self.bytes, self.is_torn) = begin(&self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// The file, its length, and whether its last line has no end.
fn begin(path: &Path) -> io::Result<(File, u64, bool)> {
    let mut file = fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok((file, length, last != *b"\n"))
}

impl<'a> Line<'a> {
    fn of(entry: &AuditEntry<'a>) -> Self {
        let (result, generation, reason) = match entry.outcome {
            Outcome::Applied(generation) => ("applied", generation, None),
            Outcome::Refused(reason) => ("refused", None, Some(clipped(reason, TEXT_CHARS_MAX))),
        };
        let shown = |difference: &Difference| {
            let key = clipped(&difference.key, TEXT_CHARS_MAX);
            let value = |value: &Option<Value>| value.as_ref().map(|value| told(&key, value));
            Difference {
                before: value(&difference.before),
                after: value(&difference.after),
                key: key.clone(),
            }
        };
        Self {
            when_ns: entry.when_ns,
            author: entry.author,
            what: clipped(entry.what, TEXT_CHARS_MAX),
            result,
            generation,
            reason,
            changed: entry.differences.iter().take(DIFFERENCES_MAX).map(shown).collect(),
            omitted: entry.differences.len().saturating_sub(DIFFERENCES_MAX),
        }
    }
}

/// A value as the log has it: without what is secret, and a long one as the beginning of its text.
fn told(key: &str, value: &Value) -> Value {
    let name = key.rsplit('.').next().unwrap_or(key);
    let value = without_secrets(name, value);
    let text = value.to_string();
    match text.chars().nth(VALUE_CHARS_MAX) {
        Some(_) => json!(clipped(&text, VALUE_CHARS_MAX)),
        None => value,
    }
}

fn without_secrets(name: &str, value: &Value) -> Value {
    if SECRET_FIELDS.iter().any(|secret| name.eq_ignore_ascii_case(secret)) {
        return json!("(not told)");
    }
    match value {
        Value::Object(entries) => {
            let entry = |(name, value): (&String, &Value)| (name.clone(), without_secrets(name, value));
            Value::Object(entries.iter().map(entry).collect())
        }
        value => value.clone(),
    }
}

fn clipped(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::TemporaryDirectory, *};

    fn author() -> Author {
        Author { by: "api".to_owned(), uid: Some(0), pid: None }
    }

    fn difference(key: &str, after: Value) -> Difference {
        Difference { key: key.to_owned(), before: None, after: Some(after) }
    }

    fn append(audit: &mut Audit, what: &str, differences: &[Difference]) {
        let outcome = Outcome::Applied(Some(Generation(7)));
        let entry = AuditEntry { when_ns: 5, author: &author(), what, outcome, differences };
        audit.append(&entry).unwrap();
    }

    fn lines(path: &Path) -> Vec<Value> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or(Value::Null))
            .collect()
    }

    #[test]
    fn a_change_is_a_line() {
        let state = TemporaryDirectory::new("audit");
        let mut audit = Audit::open(&state).unwrap();
        append(&mut audit, "merge", &[difference("pool.api.weight", json!(3))]);
        let refused = Outcome::Refused("no\nsuch pool");
        let entry =
            AuditEntry { when_ns: 6, author: &author(), what: "drain", outcome: refused, differences: &[] };
        Audit::open(&state).unwrap().append(&entry).unwrap();
        assert_eq!(
            lines(&state.join(FILE)),
            [
                json!({
                    "when_ns": 5, "by": "api", "uid": 0, "pid": null, "what": "merge", "result": "applied",
                    "generation": 7, "changed": [{ "key": "pool.api.weight", "after": 3 }],
                }),
                json!({
                    "when_ns": 6, "by": "api", "uid": 0, "pid": null, "what": "drain", "result": "refused",
                    "reason": "no\nsuch pool", "changed": [],
                }),
            ]
        );
    }

    #[test]
    fn neither_secrets_nor_lists_of_a_million() {
        let state = TemporaryDirectory::new("audit-clipped");
        let mut audit = Audit::open(&state).unwrap();
        let mut differences = vec![
            difference(
                "route.a",
                json!({ "set_headers": { "request": { "set": { "Authorization": "Basic x" } } } }),
            ),
            difference("route.b.set_headers.request.set.cookie", json!("beta=1")),
            difference("xdp.deny", json!(vec!["192.0.2.0/24"; 1000])),
        ];
        differences.extend((0..200).map(|at| difference(&format!("pool.p{at}"), json!(at))));
        append(&mut audit, "whole", &differences);
        let text = fs::read_to_string(state.join(FILE)).unwrap();
        assert!(!text.contains("Basic") && !text.contains("beta") && text.contains("(not told)"), "{text}");
        assert!(text.len() < 20_000, "{}", text.len());
        let line = &lines(&state.join(FILE))[0];
        assert_eq!((line["changed"].as_array().unwrap().len(), &line["omitted"]), (100, &json!(103)));
        assert!(line["changed"][2]["after"].as_str().unwrap().ends_with("..."));
    }

    #[test]
    fn a_torn_line_spoils_no_other() {
        let state = TemporaryDirectory::new("audit-torn");
        append(&mut Audit::open(&state).unwrap(), "one", &[]);
        let path = state.join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(b"{\"when_ns\":");
        fs::write(&path, bytes).unwrap();
        append(&mut Audit::open(&state).unwrap(), "two", &[]);
        let found = lines(&path);
        assert_eq!((found.len(), &found[1]), (3, &Value::Null));
        assert_eq!((&found[0]["what"], &found[2]["what"]), (&json!("one"), &json!("two")));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let state = TemporaryDirectory::new("audit-rotated");
        let mut audit = Audit::with_bound(&state, 1000).unwrap();
        for at in 0..200 {
            append(&mut audit, &format!("change {at}"), &[]);
        }
        let mut files: Vec<_> = fs::read_dir(&*state)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3"]);
        assert!(files.iter().all(|file| fs::metadata(state.join(file)).unwrap().len() <= 1000));
        assert_eq!(lines(&state.join(FILE)).last().unwrap()["what"], "change 199");
        let kept: usize = files.iter().map(|file| lines(&state.join(file)).len()).sum();
        let last = &lines(&state.join("audit.log.3"))[0]["what"];
        assert_eq!(*last, json!(format!("change {}", 200 - kept)), "none is missing in between");
    }
}
