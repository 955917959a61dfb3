//! Shapes of values, and the JSON Schema that they make: for editors, and for whoever generates configs.
//!
//! It knows names, types, words and units; bounds of numbers, and what must fit together, only the reader does. So it
//! accepts whatever the reader accepts, and some more. Tests hold both together.

use serde_json::{Map, Value, json};

use super::{VERSION, units, words::Words};

/// What stands under a key.
pub(super) enum Shape {
    /// `version`.
    Version,
    /// True or false.
    Boolean,
    /// A whole number.
    Number,
    /// A string that the reader knows more of.
    Text,
    /// `60s`.
    Duration,
    /// `32KiB`.
    Size,
    /// `2.5%`.
    Percent,
    /// `file:PATH`.
    Reference,
    /// This word.
    Word(&'static str),
    /// One of these words.
    Choice(&'static dyn Words),
    /// A table with these keys.
    Table(&'static Keys),
    /// Tables with these keys, by names of the operator's choosing.
    Named(&'static Keys),
    /// Values by names of fields or parameters.
    Fields(&'static Shape),
    /// An array.
    List(&'static Shape),
    /// An array that is not empty.
    NotEmpty(&'static Shape),
    /// One of these.
    Either(&'static [Shape]),
    /// Not supported yet.
    Later,
}

/// Keys of one table.
pub(super) struct Keys {
    /// Read today, each with the shape of its value.
    pub(super) supported: &'static [(&'static str, Shape)],
    /// Those of them that must always be there.
    pub(super) needed: &'static [&'static str],
    /// Names of features that are not built yet: refused by name.
    pub(super) later: &'static [&'static str],
}

impl Keys {
    /// All names that mean something.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.supported_names().chain(self.later.iter().copied())
    }

    /// Names that are read today.
    pub(super) fn supported_names(&self) -> impl Iterator<Item = &'static str> {
        self.supported.iter().map(|(name, _)| *name)
    }

    /// Whether a name is read today.
    pub(super) fn supports(&self, name: &str) -> bool {
        self.supported.iter().any(|(known, _)| *known == name)
    }
}

impl Shape {
    fn schema(&self) -> Value {
        match self {
            Self::Version => json!({ "const": VERSION }),
            Self::Boolean => json!({ "type": "boolean" }),
            Self::Number => json!({ "type": "integer", "minimum": 0 }),
            Self::Text => json!({ "type": "string" }),
            Self::Duration => units_of(units::duration_units(), "60s"),
            Self::Size => units_of(units::size_units(), "32KiB"),
            Self::Percent => pattern("^[0-9]+(\\.[0-9]+)?%$", "10%"),
            Self::Reference => pattern("^file:.", "file:secret"),
            Self::Word(word) => json!({ "const": word }),
            Self::Choice(words) => json!({ "enum": words.words() }),
            Self::Table(keys) => table(keys),
            Self::Named(keys) => json!({
                "type": "object",
                "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,64}$" },
                "additionalProperties": table(keys),
            }),
            Self::Fields(value) => json!({ "type": "object", "additionalProperties": value.schema() }),
            Self::List(item) => json!({ "type": "array", "items": item.schema() }),
            Self::NotEmpty(item) => json!({ "type": "array", "items": item.schema(), "minItems": 1 }),
            Self::Either(shapes) => json!({ "anyOf": shapes.iter().map(Self::schema).collect::<Vec<_>>() }),
            Self::Later => json!(false),
        }
    }
}

/// A table with these keys, as JSON Schema.
pub(super) fn table(keys: &Keys) -> Value {
    let shown = keys.supported.iter().filter(|(_, shape)| !matches!(shape, Shape::Later));
    let properties: Map<String, Value> =
        shown.map(|(name, shape)| ((*name).to_owned(), shape.schema())).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !keys.needed.is_empty() {
        schema["required"] = json!(keys.needed);
    }
    schema
}

fn units_of(units: impl Iterator<Item = &'static str>, example: &str) -> Value {
    let units: Vec<_> = units.collect();
    pattern(&format!("^[0-9]+({})$", units.join("|")), example)
}

fn pattern(pattern: &str, example: &str) -> Value {
    json!({ "type": "string", "pattern": pattern, "examples": [example] })
}
