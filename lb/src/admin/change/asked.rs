//! What the head of a request asks to change, and with its body the wish.

use std::path::PathBuf;

use hyper::{HeaderMap, Uri, header::USER_AGENT};
use serde_json::Value;

use super::{body, json, precondition::Precondition};
use crate::{
    admin::{
        answer::{Answer, error},
        api,
        changes::{Author, Edit, EntryEdit, Etag, Override, When, Wish},
        endpoints::{self, Act, Operation, TABLES},
        query::Query,
        view::View,
    },
    sys::Peer,
};

/// Verbs of the command line that a wish may come by, as `lb/VERSION VERB` in the user agent.
pub(crate) const VERBS: [&str; 6] = ["apply", "rollback", "drain", "undrain", "weight", "upgrade"];

/// Largest weight, as in a config.
const WEIGHT_MAX: u64 = 1000;

/// A change, but for its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    target: Target,
    if_match: Option<Vec<Etag>>,
    is_dry: bool,
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
enum Target {
    /// The body says nothing.
    Said(Edit),
    Whole,
    Merge,
    Put(&'static str, String),
    MergeInto(&'static str, String),
    Weight(String, String),
    File(PathBuf),
}

impl Asked {
    /// Reads the head; `caught` is what stands in the path where the resource has braces.
    ///
    /// # Errors
    /// It cannot be meant: 400, 404, 411, 413, 415; 409 where `If-Match: *` meets nothing.
    pub(in crate::admin) fn read(
        operation: &Operation,
        caught: Vec<String>,
        uri: &Uri,
        headers: &HeaderMap,
        view: &View,
    ) -> Result<Self, Answer> {
        let query = Query::parse(uri.query().unwrap_or_default())?;
        let known: Vec<&str> = operation.query.iter().map(|(name, _)| *name).collect();
        query.only(&known)?;
        let target = Target::of(operation.act, caught, uri, &query)?;
        let is_dry = flag(&query, "dry_run")?;
        body::check(headers, operation.takes)?;
        let if_match = match Precondition::read(headers)? {
            Precondition::None => None,
            Precondition::OneOf(tags) => Some(tags),
            Precondition::Any => target.any(view)?,
        };
        Ok(Self { target, if_match, is_dry, by: verb(headers) })
    }

    /// Whether a body is to be read.
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.target, Target::Said(_))
    }

    /// The wish.
    ///
    /// # Errors
    /// 400: the body cannot be meant.
    pub(super) fn wish(self, body: &[u8], peer: Option<Peer>) -> Result<Wish, Answer> {
        let Self { target, if_match, is_dry, by } = self;
        let author =
            Author { by: by.into(), uid: peer.map(|peer| peer.uid), pid: peer.and_then(|peer| peer.pid) };
        Ok(Wish { edit: target.edit(body)?, if_match, is_dry, by: author })
    }
}

impl Target {
    fn of(act: Act, caught: Vec<String>, uri: &Uri, query: &Query) -> Result<Self, Answer> {
        let mut caught = caught.into_iter();
        let mut next = || caught.next().ok_or_else(|| endpoints::unknown(uri.path()));
        let mut entry = || -> Result<_, Answer> {
            let table = next()?;
            let known = TABLES.into_iter().find(|known| *known == table);
            let known = known.ok_or_else(|| {
                let message = format!("no entries of {table:?}; there are {}", TABLES.join(", "));
                error(404, "not-found", &message, &table)
            })?;
            Ok((known, next()?))
        };
        Ok(match act {
            Act::PutConfig => Self::Whole,
            Act::PatchConfig => Self::Merge,
            Act::PutEntry => entry().map(|(table, name)| Self::Put(table, name))?,
            Act::PatchEntry => entry().map(|(table, name)| Self::MergeInto(table, name))?,
            Act::DeleteEntry => {
                let (table, name) = entry()?;
                Self::Said(Edit::Entry { table, name, edit: EntryEdit::Remove })
            }
            Act::Apply => Self::File(path(query)?),
            Act::Rollback => Self::Said(Edit::Rollback(api::generation(&next()?)?)),
            Act::Drain => Self::Said(overridden(next()?, next()?, Override::Drain)),
            Act::Undrain => Self::Said(overridden(next()?, next()?, Override::Undrain)),
            Act::Upgrade => {
                let when = if flag(query, "if_changed")? { When::ProgramDiffers } else { When::Always };
                Self::Said(Edit::Upgrade(query.one("binary")?.map(PathBuf::from), when))
            }
            Act::Weight => Self::Weight(next()?, next()?),
            // What only reads.
            _ => return Err(endpoints::unknown(uri.path())),
        })
    }

    /// `If-Match: *`: an entry must be there, and stay there until it is changed; the config always is.
    fn any(&self, view: &View) -> Result<Option<Vec<Etag>>, Answer> {
        let (table, name) = match self {
            Self::Put(table, name) | Self::MergeInto(table, name) => (*table, name),
            Self::Said(Edit::Entry { table, name, .. }) => (*table, name),
            _ => return Ok(None),
        };
        match view.config.entry_to_json(table, name) {
            Some(_) => Ok(Some(vec![view.etag.clone()])),
            None => {
                let message = format!("there is no {table} {name:?}");
                Err(error(409, "lost-race", &message, "if-match").with("etag", &view.etag))
            }
        }
    }

    fn edit(self, body: &[u8]) -> Result<Edit, Answer> {
        Ok(match self {
            Self::Said(edit) => edit,
            Self::Whole => Edit::Whole(object(body)?),
            Self::Merge => Edit::Merge(object(body)?),
            Self::Put(table, name) => Edit::Entry { table, name, edit: EntryEdit::Put(object(body)?) },
            Self::MergeInto(table, name) => {
                Edit::Entry { table, name, edit: EntryEdit::Merge(object(body)?) }
            }
            Self::Weight(pool, address) => overridden(pool, address, Override::Weight(weight(body)?)),
            Self::File(path) => {
                let text = std::str::from_utf8(body).map_err(|wrong| {
                    let place = format!("body, byte {}", wrong.valid_up_to());
                    error(400, "utf-8", "the file is not UTF-8", &place)
                })?;
                Edit::File { path, text: text.to_owned() }
            }
        })
    }
}

fn overridden(pool: String, address: String, change: Override) -> Edit {
    Edit::Override { pool, address, change }
}

fn object(body: &[u8]) -> Result<Value, Answer> {
    let value = json::parse(body)?;
    match value.is_object() {
        true => Ok(value),
        // A merge patch of another kind would take the place of all (RFC 7396, section 2).
        false => Err(error(400, "json", "must be an object", "body")),
    }
}

/// `{"weight": 3}`, `{"weight": null}` or `null`.
fn weight(body: &[u8]) -> Result<Option<u16>, Answer> {
    let wrong = || {
        let message = format!("must be {{\"weight\": 1 to {WEIGHT_MAX}}}, or null: the config's");
        error(400, "weight", &message, "body")
    };
    let said = match json::parse(body)? {
        Value::Null => Value::Null,
        Value::Object(mut fields) if fields.len() == 1 => fields.remove("weight").ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    match said {
        Value::Null => Ok(None),
        said => {
            // 3.0 is an integer, too (JSON Schema 2020-12, validation, 6.1.1).
            let whole = said.as_f64().filter(|said| said.fract() == 0.0 && *said >= 0.0);
            let weight = whole.map(|said| said as u64).filter(|weight| (1..=WEIGHT_MAX).contains(weight));
            weight.and_then(|weight| u16::try_from(weight).ok()).map(Some).ok_or_else(wrong)
        }
    }
}

/// One that is said with 1, and else is not.
fn flag(query: &Query, name: &str) -> Result<bool, Answer> {
    match query.one(name)? {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(said) => Err(error(400, "query", &format!("{name} must be 1 or 0"), said)),
    }
}

/// Where the file stands whose text comes.
fn path(query: &Query) -> Result<PathBuf, Answer> {
    let path = query.one("path")?.map(PathBuf::from);
    path.filter(|path| path.is_absolute() && path.file_name().is_some()).ok_or_else(|| {
        error(400, "query", "path must be the absolute path of the file that the text is of", "path")
    })
}

/// Which of our own verbs asks, else `api`.
fn verb(headers: &HeaderMap) -> &'static str {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let said = agent.strip_prefix("lb/").and_then(|rest| rest.split_once(' ')).map(|(_, verb)| verb);
    VERBS.into_iter().find(|verb| said == Some(verb)).unwrap_or("api")
}
