//! The query of a request: `key=value&key=value`, percent-encoded, `+` a space (WHATWG URL, 5.1).

use super::answer::{Answer, error};

/// Pairs in the order they stand.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part behind `?`.
    ///
    /// # Errors
    /// 400: an escape that is none, or bytes that are not UTF-8.
    pub(super) fn parse(text: &str) -> Result<Self, Answer> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            decode(key)
                .zip(decode(value))
                .ok_or_else(|| error(400, "query", "not percent-encoded UTF-8", pair))
        });
        Ok(Self(pairs.collect::<Result<_, _>>()?))
    }

    /// The value of a key that may stand once.
    ///
    /// # Errors
    /// 400: it stands twice.
    pub(super) fn one(&self, key: &str) -> Result<Option<&str>, Answer> {
        let mut values = self.0.iter().filter(|(known, _)| known == key).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(error(400, "query", "the parameter is said twice", key)),
            (value, None) => Ok(value),
        }
    }

    /// # Errors
    /// 400: a key that is not among `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Answer> {
        match self.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => {
                let message = format!("no such parameter; there are {}", known.join(", "));
                Err(error(400, "query", &message, key))
            }
            None => Ok(()),
        }
    }
}

fn decode(text: &str) -> Option<String> {
    decoded(text, b' ')
}

/// A segment of a path, where `+` is itself (RFC 3986, section 3.3).
pub(super) fn decode_segment(text: &str) -> Option<String> {
    decoded(text, b'+')
}

fn decoded(text: &str, plus: u8) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        bytes.push(match first {
            b'+' => plus,
            b'%' => {
                let (digits, tail) = rest.split_first_chunk::<2>()?;
                rest = tail;
                let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
                (high? << 4 | low?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A value as it can stand in a query or in a segment of a path.
pub(crate) fn encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back() {
        for text in ["", "tcp [::1]:1 -> 2.2.2.2:2 flags=syn+ack&x=%", "grüße", "\0\n"] {
            let query = Query::parse(&format!("a=1&flow={}", encode(text))).unwrap();
            assert_eq!(query.one("flow").unwrap(), Some(text));
            assert_eq!(query.one("b").unwrap(), None);
        }
        assert_eq!(Query::parse("a=b+c%20d").unwrap().one("a").unwrap(), Some("b c d"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["a=%", "a=%1", "a=%zz", "a=%ff", "%c3=1"] {
            assert_eq!(Query::parse(text).unwrap_err().status, 400, "{text}");
        }
        let query = Query::parse("a=1&a=2&b").unwrap();
        assert_eq!(query.one("a").unwrap_err().status, 400);
        assert!(query.only(&["a", "b"]).is_ok());
        assert!(query.only(&["a"]).unwrap_err().body.contains("\"where\":\"b\""));
    }
}
