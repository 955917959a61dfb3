//! What a person writes: the TOML of a config file, or the JSON that means the same, read into a [`Config`].
//!
//! Everything that is wrong is said at once. The document is parsed with recovery, each table is read by its
//! schema into a draft with places, and the drafts are checked against each other; only a file without any
//! error becomes a [`Config`]. serde's derive is not used here, as it stops at the first error.

mod address;
mod check;
mod choosing;
mod dns;
mod drafts;
mod edited;
mod field;
mod findings;
mod health;
mod json;
mod json_schema;
mod listener;
mod log;
mod named;
mod nat;
mod nat_source;
mod notes;
mod outlier;
mod pattern;
mod pool;
mod process;
mod quic;
mod quic_draft;
mod reader;
mod route;
mod route_conflicts;
mod route_index;
mod route_policy;
mod schema;
mod shape;
mod source;
mod sources;
mod suggest;
#[cfg(test)]
mod tests;
mod tls;
mod tls_uses;
mod units;
mod unread;
mod vip;
mod vip_keys;
mod words;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::DeTable;

use self::{
    drafts::Drafts,
    listener::ListenerDraft,
    notes::DocumentSize,
    pool::PoolDraft,
    reader::{Fault, Findings, Show, Table},
    route::RouteDraft,
    source::Source,
    tls::TlsDraft,
    unread::Unread,
    vip::VipDraft,
};
pub use self::{
    edited::{Touched, read_edited},
    json::read_json,
    json_schema::json_schema,
    notes::ReadingNotes,
};
pub(super) use self::{
    log::show_sample,
    units::{show_duration, show_size},
};
use super::{
    Config, Digest, RouteAction,
    problem::{Problem, Problems, Severity},
};

/// Largest config file, in bytes: a full deny list with every other map filled fits in half of it.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// The only `version` there is.
const VERSION: u64 = 1;

/// A config that may be applied.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// What it probably should not say.
    pub warnings: Problems,
    /// Of the file's bytes; of a document its compact JSON.
    pub digest: Digest,
    /// Where the file is, empty for a text without one; its references are opened beneath (RESOLVE_BENEATH:
    /// a link must not lead out).
    pub directory: PathBuf,
    /// What is to be known to read edits of it.
    pub notes: ReadingNotes,
}

/// Reads and parses a config file.
///
/// # Errors
/// The file cannot be read, is larger than [`FILE_BYTES_MAX`], is not UTF-8, or [`parse`] refuses it.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let loaded = parse(&path.display().to_string(), &read_text(path)?)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok(Loaded { directory, ..loaded })
}

/// Reads a config file.
///
/// # Errors
/// It cannot be read, is larger than [`FILE_BYTES_MAX`] or not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Problems> {
    let whole_file = |message| Problems::from(Problem::of_file(path, message));
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that a longer file is seen to be longer, and no endless one is read.
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| whole_file(format!("cannot be read: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(whole_file(too_large()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..offset).unwrap_or_default());
        let place = Some(Source::new("", &before).place(offset));
        let message = format!("is not UTF-8: the first bad byte is at offset {offset}");
        Problems::from(Problem { place, ..Problem::of_file(path, message) })
    })
}

/// `state.dir` of a text that may be no config, where it can be made out.
pub fn state_dir_in(text: &str) -> Option<PathBuf> {
    let (document, _) = DeTable::parse_recoverable(text);
    let state = document.get_ref().get("state")?.get_ref().as_table()?;
    Some(state.get("dir")?.get_ref().as_str()?.into())
}

/// Parses the text of a config file. Pure; `name` is what problems call the file.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Problem::of_file(Path::new(name), too_large()).into());
    }
    let source = Source::new(name, text);
    if let Some((offset, message)) = source.excess() {
        let place = Some(source.place(offset));
        return Err(Problem { place, ..Problem::of_file(Path::new(name), message.to_owned()) }.into());
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut findings = Findings::new(source);
    findings.syntax(&errors);
    // JSON has its quotes and defaults, and no key or value is shorter than two bytes.
    let size = DocumentSize { bytes: 3 * text.len(), values: text.len() / 2 };
    judge(name, findings, document.get_ref(), Digest::of(text.as_bytes()), size, Unread::default())
}

/// The config of a whole document, or what is wrong with it.
fn judge(
    name: &str,
    findings: Findings<'_>,
    document: &DeTable<'_>,
    digest: Digest,
    size: DocumentSize,
    unread: Unread,
) -> Result<Loaded, Problems> {
    let config = read(&findings, document, unread);
    let warnings = findings.finish()?;
    // A draft that cannot be built has an error in the findings, and we are not here.
    let Some(config) = config else {
        return Err(
            Problem::of_file(Path::new(name), "was refused without a reason (a bug)".to_owned()).into()
        );
    };
    let notes = ReadingNotes::new(&warnings, size);
    Ok(Loaded { config, warnings, digest, directory: PathBuf::new(), notes })
}

fn too_large() -> String {
    format!("is larger than {} MiB", FILE_BYTES_MAX >> 20)
}

/// `None` where an error was reported that left something without a value.
fn read(findings: &Findings<'_>, document: &DeTable<'_>, unread: Unread) -> Option<Config> {
    let top = Table::top(findings, document, &schema::TOP);
    version(&top);
    refuse_later(&top, findings);
    let runtime = process::runtime(&top);
    let xdp = process::xdp(&top);
    let (admin, admin_http) = process::admin(&top);
    let limits = process::limits(&top);
    let state = process::state(&top);
    let programs_dir = process::programs_dir(&top);
    let upgrade = process::upgrade(&top);
    let dns = dns::dns(&top);
    let access_log = log::access_log(&top, &state.dir);
    let drafts = Drafts {
        vips: named(&top, "vip", &schema::VIP, findings, VipDraft::read),
        listeners: named(&top, "listener", &schema::LISTENER, findings, ListenerDraft::read),
        routes: named(&top, "route", &schema::ROUTE, findings, RouteDraft::read),
        tls: named(&top, "tls", &schema::TLS, findings, TlsDraft::read),
        pools: named(&top, "pool", &schema::POOL, findings, PoolDraft::read),
        admin_http,
        admin_socket: admin.socket.clone(),
        has_xdp: top.value("xdp").is_some(),
        has_programs: programs_dir.is_some(),
        unread,
    };
    if findings.is_whole() {
        check::check(&drafts, findings);
    }
    let listeners: BTreeMap<_, _> =
        drafts.listeners.into_iter().map(|d| Some((d.name.clone(), d.build()?))).collect::<Option<_>>()?;
    let pools: BTreeMap<_, _> =
        drafts.pools.into_iter().map(|d| Some((d.name.clone(), d.build()?))).collect::<Option<_>>()?;
    let route = |draft: RouteDraft| {
        let (name, mut route) = (draft.name.clone(), draft.build()?);
        // One name for all of them.
        if let Some((known, _)) = listeners.get_key_value(&route.listener) {
            route.listener = known.clone();
        }
        if let RouteAction::Forward { pool, .. } = &mut route.action
            && let Some((known, _)) = pools.get_key_value(pool)
        {
            *pool = known.clone();
        }
        Some((name, Arc::new(route)))
    };
    let routes = drafts.routes.into_iter().map(route).collect::<Option<_>>()?;
    Some(Config {
        runtime,
        xdp,
        admin,
        limits,
        state,
        programs_dir,
        upgrade,
        dns,
        access_log,
        vips: drafts.vips.into_iter().map(|d| Some((d.name.clone(), d.build()?))).collect::<Option<_>>()?,
        listeners,
        routes,
        tls: drafts.tls.into_iter().map(|d| Some((d.name.clone(), d.build()?))).collect::<Option<_>>()?,
        pools,
    })
}

fn version(top: &Table<'_>) {
    let rule = "every config says which schema it is written in: version = 1";
    let Some(value) = top.required("version", rule) else { return };
    if let Some(version) = value.integer(0..u64::MAX)
        && version.value != VERSION
    {
        value.fault(Fault::new("this build reads version 1 only"));
    }
}

/// Tables of features that are not built yet: each of their keys by name, or the table where it is empty.
fn refuse_later(top: &Table<'_>, findings: &Findings<'_>) {
    let refuse_if_empty = |table: &Table<'_>, key: &str| {
        if table.is_empty() {
            findings.report(key, &table.span, Show::KeyOnly, Severity::Error, Fault::later());
        }
    };
    for (name, keys) in schema::LATER_TABLES {
        if let Some(table) = top.table(name, keys) {
            refuse_if_empty(&table, name);
        }
    }
}

/// Every `[table.NAME]`, in the order of the names.
fn named<'t, D>(
    top: &Table<'t>,
    table: &str,
    keys: &shape::Keys,
    findings: &'t Findings<'t>,
    read: impl Fn(Arc<str>, &Table<'t>) -> D,
) -> Vec<D> {
    let Some(tables) = top.value(table).and_then(|value| value.any_table()) else { return Vec::new() };
    let mut drafts = Vec::new();
    for (name, value) in tables.entries() {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let text: &str = name.get_ref();
        if !(1..=64).contains(&text.len()) || !text.bytes().all(bare) {
            // Names stand in metric labels, in paths of the API and in POOL/BACKEND.
            let fault = Fault::new("a name has 1 to 64 letters, digits, hyphens and underscores");
            findings.report(value.key(), &name.span(), Show::KeyOnly, Severity::Error, fault);
        }
        if let Some(table) = value.table(keys) {
            drafts.push(read(text.into(), &table));
        }
    }
    drafts
}
