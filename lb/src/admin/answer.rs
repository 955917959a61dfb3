//! What every request gets.

use serde_json::{Value, json};

/// Of answers for people.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// An answer, ready to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
    /// Further fields of its head, names in lower case.
    pub fields: Vec<(&'static str, String)>,
}

impl Answer {
    /// The same with one more field.
    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }
}

/// `{ "error": { "code", "message", "where" } }`.
pub fn error(status: u16, code: &str, message: &str, place: &str) -> Answer {
    json_answer(status, &json!({ "error": { "code": code, "message": message, "where": place } }))
}

/// A document, with a newline.
pub(super) fn json_answer(status: u16, document: &Value) -> Answer {
    Answer { status, content_type: "application/json", body: format!("{document}\n"), fields: Vec::new() }
}
