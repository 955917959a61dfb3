//! Fields that tell a backend who a client is, by the certificate that it has shown. No client's own words may stand there, in
//! any spelling that some backend could take for them.

/// Takes every field out of the head that ends `out`, from `start` on, whose name is one of `names`, and adds those in `told`
/// that have a value.
pub fn impose<'f>(
    out: &mut Vec<u8>,
    start: usize,
    names: impl Iterator<Item = &'f str> + Clone,
    told: impl Iterator<Item = (&'f str, &'f str)>,
) {
    let head = out.split_off(start);
    for (at, line) in head.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        let is_ours = at > 0 && names.clone().any(|ours| is_same(ours.as_bytes(), name));
        if line == b"\r\n" {
            break;
        }
        if !is_ours {
            out.extend_from_slice(line);
        }
    }
    for (name, value) in told.filter(|(_, value)| !value.is_empty()) {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Case does not matter, and to those who make variables of names neither does `-` or `_`.
fn is_same(ours: &[u8], theirs: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    ours.len() == theirs.len() && ours.iter().map(plain).eq(theirs.iter().map(plain))
}

#[cfg(test)]
mod tests {
    #[test]
    fn nobody_says_it_but_us() {
        let head = "PROXY\r\nGET /x-id: 1 HTTP/1.1\r\nHost: a\r\nX-Id: evil\r\nx_id: evil\r\nX-Idle: fine\r\nX-Gone:\r\n\r\n";
        let impose = |told: &[(&'static str, &'static str)]| {
            let mut out = head.as_bytes().to_vec();
            super::impose(&mut out, 7, ["x-id", "x-gone"].into_iter(), told.iter().copied());
            String::from_utf8(out).unwrap()
        };
        let kept = "PROXY\r\nGET /x-id: 1 HTTP/1.1\r\nHost: a\r\nX-Idle: fine\r\n";
        assert_eq!(impose(&[]), format!("{kept}\r\n"));
        assert_eq!(impose(&[("x-id", "CN=a"), ("x-gone", "")]), format!("{kept}x-id: CN=a\r\n\r\n"));
    }
}
