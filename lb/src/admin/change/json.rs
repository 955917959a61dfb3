//! JSON as a change has it: no key may stand twice (RFC 7493, section 2.3), for one of them would be lost in silence.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::admin::answer::{Answer, error};

/// Reads a body.
///
/// # Errors
/// 400, with the line and the column.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Answer> {
    serde_json::from_slice::<Unique>(bytes).map(|unique| unique.0).map_err(|wrong| {
        let place = format!("body, line {}, column {}", wrong.line(), wrong.column());
        let message = wrong.to_string();
        // It ends with the place.
        let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
        error(400, "json", message, &place)
    })
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice")));
            }
            let Unique(value) = entries.next_value()?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_what_serde_json_does_but_for_doubles() {
        for text in
            ["null", "[1, -2, 3.5, true, \"a\\u00e4\"]", "{\"a\": {\"b\": [], \"c\": null}, \"b\": {}}"]
        {
            assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        }
        let refused = |text: &str| parse(text.as_bytes()).unwrap_err().body;
        let twice = refused("{\"a\": {\n\"b\": 1, \"b\": 2}}");
        assert!(
            twice.contains("the key \\\"b\\\" stands twice") && twice.contains("body, line 2"),
            "{twice}"
        );
        assert!(refused("{} x").contains("line 1, column 4"));
        assert!(refused("").contains("EOF"));
        assert!(refused(&"[".repeat(10_000)).contains("recursion"), "the stack is safe");
        assert!(refused("\"\u{1}\"").contains("control character"));
        assert!(parse(b"\"\xff\"").is_err());
    }
}
