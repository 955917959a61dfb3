//! The JSON Schema of a config.

use serde_json::{Value, json};

use super::{schema, shape::table};

/// JSON Schema of a config, in its JSON form as in its TOML.
///
/// Source: JSON Schema, draft 2020-12.
pub fn json_schema() -> Value {
    let mut schema = table(&schema::TOP);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("lb config");
    schema
}
