//! Files that know whether they are whole: one line that says what it is, how long and with which digest; then JSON.
//!
//! ```text
//! lb-generation 1 43e1662793c64bf6f0d3597ba446f18a 1234
//! {"about":...}
//! ```
//!
//! The digest finds what a torn write or a bad disk did. It does not stop anybody who may write here.

use std::{fmt, io, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};

use crate::config::Digest;

/// Version of the form.
const VERSION: u32 = 1;

/// A file that is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

impl std::error::Error for Damage {}

/// A file's bytes. `kind` is one word.
///
/// # Errors
/// It cannot be said in JSON: a path is not UTF-8.
pub(super) fn seal(kind: &str, body: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(body)?;
    let mut bytes = format!("{kind} {VERSION} {} {}\n", Digest::of(&body), body.len()).into_bytes();
    bytes.extend(body);
    Ok(bytes)
}

/// What such a file says, or what is wrong with it.
pub(super) fn unseal<T: DeserializeOwned>(kind: &str, bytes: &[u8]) -> Result<T, String> {
    let line = bytes.iter().position(|byte| *byte == b'\n').and_then(|end| bytes.split_at_checked(end));
    let (head, body) = line.ok_or_else(|| match bytes.len() {
        0 => "is empty".to_owned(),
        length => format!("is cut off within its first line, after {length} bytes"),
    })?;
    let body = body.get(1..).unwrap_or_default();
    let words: Vec<&str> = std::str::from_utf8(head).unwrap_or_default().split(' ').collect();
    let [found, version, digest, length] = words[..] else {
        return Err("does not begin as it should".to_owned());
    };
    if found != kind {
        return Err(format!("does not begin with {kind}"));
    }
    if version != VERSION.to_string() {
        return Err(format!("is of version {version:?}; this build reads {VERSION}"));
    }
    if length != body.len().to_string() {
        return Err(format!("has {} bytes after its first line instead of {length}", body.len()));
    }
    if digest != Digest::of(body).to_string() {
        return Err("is not what was written: its digest differs".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("cannot be understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_cut_or_flipped_is_seen() {
        let bytes = seal("lb-x", &["a", "b"]).unwrap();
        assert_eq!(unseal::<Vec<String>>("lb-x", &bytes).unwrap(), ["a", "b"]);
        assert!(unseal::<Vec<String>>("lb-y", &bytes).is_err());
        for cut in 0..bytes.len() {
            assert!(unseal::<Vec<String>>("lb-x", &bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(unseal::<Vec<String>>("lb-x", &flipped).is_err(), "{at} {bit}");
            }
        }
        let longer = [&bytes[..], b" "].concat();
        assert!(unseal::<Vec<String>>("lb-x", &longer).is_err());
    }
}
