//! Reads the cases where cargo has put the crate's sources. Scalars are taken as they are written: `0x10` is four characters.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use yaml_rust2::parser::{Event, Parser};

/// One head.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) version: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) tier: Tier,
}

/// What the crate says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Compliant,
    /// Acceptable or ambiguous.
    Between,
    Severe,
}

/// All of them.
///
/// # Panics
/// The sources are not there, or not as we know them.
pub(crate) fn read() -> Vec<Case> {
    let mut files: Vec<_> =
        fs::read_dir(directory()).expect("tests of the crate").map(|file| file.unwrap().path()).collect();
    files.sort();
    let files = files.iter().filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.flat_map(|path| cases(&fs::read_to_string(path).unwrap())).collect()
}

fn directory() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Of other platforms nothing may be there.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &platform])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages.find(|package| package["name"] == "http_desync_guardian").expect("the crate");
    let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a path"));
    manifest.parent().expect("a directory").join("tests")
}

/// As written: no types.
enum Node {
    Scalar(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    fn read(parser: &mut Parser<std::str::Chars<'_>>) -> Option<Self> {
        loop {
            return match parser.next_token().expect("YAML").0 {
                Event::Scalar(text, ..) => Some(Self::Scalar(text)),
                Event::SequenceStart(..) => {
                    let mut items = Vec::new();
                    while let Some(item) = Self::read(parser) {
                        items.push(item);
                    }
                    Some(Self::List(items))
                }
                Event::MappingStart(..) => {
                    let mut table = BTreeMap::new();
                    while let Some(key) = Self::read(parser) {
                        table.insert(key.text(), Self::read(parser).expect("a value"));
                    }
                    Some(Self::Table(table))
                }
                Event::SequenceEnd | Event::MappingEnd | Event::StreamEnd | Event::DocumentEnd => None,
                _ => continue,
            };
        }
    }

    fn text(&self) -> String {
        let Self::Scalar(text) = self else { panic!("no scalar") };
        text.clone()
    }

    fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            // `headers:` with nothing behind it.
            Self::Scalar(text) if text.is_empty() || text == "~" => &[],
            _ => panic!("no list"),
        }
    }

    fn at(&self, key: &str) -> &Self {
        let Self::Table(table) = self else { panic!("no table") };
        table.get(key).unwrap_or_else(|| panic!("no {key}"))
    }
}

fn cases(text: &str) -> Vec<Case> {
    let mut parser = Parser::new_from_str(text);
    let Some(all) = Node::read(&mut parser) else { return Vec::new() };
    let case = |node: &Node| Case {
        name: node.at("name").text(),
        method: node.at("method").text(),
        uri: node.at("uri").text(),
        version: node.at("version").text(),
        headers: node
            .at("headers")
            .items()
            .iter()
            .map(|it| (it.at("name").text(), it.at("value").text()))
            .collect(),
        tier: match node.at("expected").at("tier").text().as_str() {
            "Compliant" => Tier::Compliant,
            "Severe" => Tier::Severe,
            _ => Tier::Between,
        },
    };
    all.items().iter().map(case).collect()
}
