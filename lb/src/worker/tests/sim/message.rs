//! HTTP/1 messages as the scripts read and write them: simple, strict, and nothing of the worker's own code.

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    /// A response; whether to HEAD.
    Response(bool),
}

/// A message as far as it has come.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) start: String,
    fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Bytes of it, if it is whole.
    pub(super) len: Option<usize>,
    /// It ends with its connection.
    pub(super) until_close: bool,
}

impl Message {
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.value(name).is_some_and(|is| is.eq_ignore_ascii_case(value))
    }

    pub(super) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    pub(super) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }
}

/// The message at the front; `None`: its head has not come whole.
pub(super) fn parse(buf: &[u8], kind: Kind) -> Result<Option<Message>, String> {
    let Some(end) = memchr::memmem::find(buf, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&buf[..end]).map_err(|_| "a head that is no text")?;
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let field = |line: &str| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned()));
    let fields: Option<Vec<_>> = lines.map(field).collect();
    let fields = fields.ok_or_else(|| format!("a malformed line in {head:?}"))?;
    let mut message = Message { start, fields, body: Vec::new(), len: None, until_close: false };
    let behind = &buf[end + 4..];
    let status = message.status();
    let is_empty = match kind {
        Kind::Request => false,
        Kind::Response(to_head) => to_head || status < 200 || status == 204 || status == 304,
    };
    let head_len = end + 4;
    if is_empty {
        message.len = Some(head_len);
    } else if let Some(length) = message.value("content-length") {
        let length: usize = length.parse().map_err(|_| format!("a length of {length:?}"))?;
        message.body = behind[..length.min(behind.len())].to_vec();
        message.len = (behind.len() >= length).then_some(head_len + length);
    } else if message.has("transfer-encoding", "chunked") {
        message.len = chunks(behind, &mut message.body)?.map(|len| head_len + len);
    } else if kind == Kind::Request {
        message.len = Some(head_len);
    } else {
        message.until_close = true;
        message.body = behind.to_vec();
    }
    Ok(Some(message))
}

/// Payload of chunks; how long they are if all have come.
fn chunks(buf: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(line) = memchr::memmem::find(&buf[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&buf[at..at + line]).unwrap_or("?");
        let size = usize::from_str_radix(size, 16).map_err(|_| format!("a chunk size of {size:?}"))?;
        at += line + 2;
        let piece = &buf[at..(at + size).min(buf.len())];
        body.extend_from_slice(piece);
        at += size;
        let Some(end) = buf.get(at..at + 2) else { return Ok(None) };
        if end != b"\r\n" {
            return Err("a chunk that does not end".to_owned());
        }
        at += 2;
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

/// `body` in chunks of at most `piece` bytes.
pub(super) fn chunked(body: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.chunks(piece.max(1)) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// `len` bytes that nobody else has.
pub(super) fn bytes_of(name: &str, len: usize) -> Vec<u8> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut rng = crate::ring::simulated::Rng::new(seed);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&rng.next().to_ne_bytes());
    }
    out.truncate(len);
    out
}
