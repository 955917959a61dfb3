//! One key of what is shown.

use std::path::Path;

use serde_json::{Value, json};

/// Puts a key that is left out where it has no value.
pub(super) fn put(table: &mut Value, key: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        table[key] = json!(value);
    }
}

/// As a file is referred to.
pub(super) fn file_reference(path: &Path) -> String {
    format!("file:{}", path.display())
}
