//! `If-Match` (RFC 9110, section 13.1.1): the config that a change is meant for.

use hyper::{
    HeaderMap,
    header::{IF_MATCH, IF_NONE_MATCH},
};

use crate::admin::{
    answer::{Answer, error},
    changes::Etag,
};

/// What must be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Nothing is said.
    None,
    /// `*`: there is one.
    Any,
    /// It is one of these. Weak ones are left out, as they match nothing here.
    OneOf(Vec<Etag>),
}

impl Precondition {
    /// # Errors
    /// 400: it is no list of entity tags, or the header is `If-None-Match`, which no change knows.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Answer> {
        if headers.contains_key(IF_NONE_MATCH) {
            let message = "a change knows no If-None-Match: say If-Match with the config's ETag";
            return Err(error(400, "if-none-match", message, "if-none-match"));
        }
        let mut tags = Vec::new();
        let mut is_any = false;
        let mut is_said = false;
        for value in headers.get_all(IF_MATCH) {
            is_said = true;
            let text = value.to_str().map_err(|_| malformed())?.trim();
            match text {
                "*" => is_any = true,
                text => read_list(text, &mut tags)?,
            }
        }
        match (is_said, is_any) {
            (false, _) => Ok(Self::None),
            (true, true) => Ok(Self::Any),
            (true, false) => Ok(Self::OneOf(tags)),
        }
    }
}

fn malformed() -> Answer {
    error(400, "if-match", "must be * or a list of entity tags, such as \"5d0c2f6f\"", "if-match")
}

/// `"a", W/"b"`; a comma may stand in a tag.
fn read_list(text: &str, tags: &mut Vec<Etag>) -> Result<(), Answer> {
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (is_weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let (tag, behind) =
            quoted.strip_prefix('"').and_then(|tag| tag.split_once('"')).ok_or_else(malformed)?;
        if tag.bytes().any(|byte| byte <= b' ') {
            return Err(malformed());
        }
        if !is_weak {
            tags.push(Etag(tag.into()));
        }
        let behind = behind.trim_start();
        if !(behind.is_empty() || behind.starts_with(',')) {
            return Err(malformed());
        }
        rest = behind.trim_start_matches([' ', '\t', ',']);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn read(values: &[&'static str]) -> Result<Precondition, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_MATCH, HeaderValue::from_static(value));
        }
        Precondition::read(&headers).map_err(|answer| answer.status)
    }

    #[test]
    fn lists_are_read_as_the_rfc_has_them() {
        let tags = |tags: &[&str]| {
            Ok(Precondition::OneOf(tags.iter().map(|tag| Etag((*tag).into())).collect::<Vec<_>>()))
        };
        assert_eq!(read(&[]), Ok(Precondition::None));
        assert_eq!(read(&["*"]), Ok(Precondition::Any));
        assert_eq!(read(&["\"a\""]), tags(&["a"]));
        assert_eq!(read(&["\"a,b\" ,\t\"c\"", ", \"\""]), tags(&["a,b", "c", ""]));
        assert_eq!(read(&["W/\"a\""]), tags(&[]), "a weak tag matches nothing");
        assert_eq!(read(&[""]), tags(&[]));
        for bad in ["a", "\"a", "\"a\" \"b\"", "\"a\"b", "*, \"a\"", "w/\"a\"", "\"a b\""] {
            assert_eq!(read(&[bad]), Err(400), "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.append(IF_NONE_MATCH, HeaderValue::from_static("*"));
        assert_eq!(Precondition::read(&headers).unwrap_err().status, 400, "not passed over in silence");
    }
}
