//! A request as a person describes it: `POST http://api.example.com/v1/users?x=1 header:X-Canary=1 from=10.0.0.7`.
//!
//! ```text
//! question = [method] url *option                  GET unless said
//! url      = http://host[:port][/path][?query]     the path as a client would send it; also https
//!          | tls://name[:port]                     a TLS client that is passed on by the name it asks for
//! option   = header:NAME=VALUE                     as often as wanted; "header:NAME=a value" with spaces
//!          | from=198.51.100.7                     the client's address; nobody's unless said
//!          | listener=web                          by port unless said
//!          | sni=api.example.com                   of https: the name that the handshake asks for; the host unless said
//! ```

use std::{fmt, net::IpAddr, str::FromStr};

use super::question::{QuestionError, Word};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// HTTP within TLS, which ends here.
    Https,
    /// No request, but the first message of a TLS client that is passed on: only the authority means something.
    Tls,
}

impl Scheme {
    const ALL: [(&'static str, Self); 3] = [("http", Self::Http), ("https", Self::Https), ("tls", Self::Tls)];

    /// As URLs have it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, scheme)| *scheme == self).map_or("", |(name, _)| name)
    }

    /// The port where none is said.
    pub const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https | Self::Tls => 443,
        }
    }
}

/// A request that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestQuestion {
    /// What is spoken.
    pub scheme: Scheme,
    /// Method.
    pub method: String,
    /// Host, port and what else stands in `Host`.
    pub authority: String,
    /// Port that is connected to; `None`: the usual one.
    pub port: Option<u16>,
    /// From the path on; may be empty.
    pub target: String,
    /// Fields, in order.
    pub headers: Vec<(String, String)>,
    /// Address of the client.
    pub client: Option<IpAddr>,
    /// Listener that takes it.
    pub listener: Option<String>,
    /// The name that the handshake asks for, where it is not the host.
    pub sni: Option<String>,
}

impl RequestQuestion {
    /// Whether a text is meant as a question about a request, not about a packet.
    pub fn is_meant(text: &str) -> bool {
        text.contains("://")
    }
}

impl fmt::Display for RequestQuestion {
    /// As it can be asked again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, method, authority, target, headers, client, listener, sni, .. } = self;
        match scheme {
            Scheme::Tls => write!(f, "tls://{authority}")?,
            scheme => write!(f, "{method} {}://{authority}{target}", scheme.name())?,
        }
        for (name, value) in headers {
            match value.contains(char::is_whitespace) {
                true => write!(f, " \"header:{name}={value}\""),
                false => write!(f, " header:{name}={value}"),
            }?;
        }
        if let Some(client) = client {
            write!(f, " from={client}")?;
        }
        if let Some(listener) = listener {
            write!(f, " listener={listener}")?;
        }
        if let Some(sni) = sni {
            write!(f, " sni={sni}")?;
        }
        Ok(())
    }
}

/// Words between white space; one that begins with a quote ends at the next.
fn words(text: &str) -> Result<Vec<Word<'_>>, QuestionError> {
    let mut words = Vec::new();
    let mut rest = Word { text, column: 1 };
    loop {
        rest = rest.after(rest.text.len() - rest.text.trim_start().len());
        if rest.text.is_empty() {
            return Ok(words);
        }
        let (start, len, behind) = match rest.text.strip_prefix('"') {
            Some(quoted) => {
                let len = quoted.find('"').ok_or_else(|| rest.wrong("the quote has no end"))?;
                (1, len, len + 2)
            }
            None => {
                let len = rest.text.find(char::is_whitespace).unwrap_or(rest.text.len());
                (0, len, len)
            }
        };
        let word = rest.after(start);
        words.push(Word { text: word.text.get(..len).unwrap_or_default(), ..word });
        rest = rest.after(behind);
    }
}

impl FromStr for RequestQuestion {
    type Err = QuestionError;

    fn from_str(text: &str) -> Result<Self, QuestionError> {
        let end = Word { text: "", column: text.trim_end().chars().count() + 1 };
        if let Some(at) = text.find(char::is_control) {
            let before = text.get(..at).unwrap_or_default();
            return Err(Word { text: "", column: before.chars().count() + 1 }.wrong("a control character"));
        }
        let words = words(text)?;
        let mut words = words.into_iter().peekable();
        let method = words.next_if(|word| !word.text.contains("://"));
        if let Some(word) =
            method.filter(|word| !word.text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-'))
        {
            return Err(word.wrong(format!("{:?} is no method", word.text)));
        }
        let url = words.next().ok_or_else(|| end.wrong("the URL is missing"))?;
        let mut question = read_url(url)?;
        if let Some(method) = method.filter(|_| question.scheme == Scheme::Tls) {
            return Err(method.wrong("a TLS client that is passed on shows no method"));
        }
        question.method = method.map_or("GET", |word| word.text).to_owned();
        for word in words {
            question.option(word)?;
        }
        Ok(question)
    }
}

fn read_url(url: Word<'_>) -> Result<RequestQuestion, QuestionError> {
    let named = url.text.split_once("://").map(|(name, _)| name);
    let scheme = Scheme::ALL.iter().find(|(name, _)| Some(*name) == named).map(|(_, scheme)| *scheme);
    let Some(scheme) = scheme else {
        return Err(url.wrong("a URL begins with http://, https:// or tls://"));
    };
    let (rest, is_tls) = (url.after(scheme.name().len() + "://".len()), scheme == Scheme::Tls);
    let len = rest.text.find(['/', '?', '#']).unwrap_or(rest.text.len());
    let (authority, target) = rest.text.split_at(len);
    if authority.is_empty() {
        return Err(rest.wrong("a host is missing"));
    }
    if is_tls && !target.is_empty() {
        return Err(rest.after(len).wrong("a TLS client that is passed on shows no path"));
    }
    if target.contains('#') {
        return Err(rest.after(len).wrong("a fragment is never sent"));
    }
    let port = match authority.rsplit_once(':') {
        Some((before, port)) if !before.contains(':') || before.ends_with(']') => {
            let place = rest.after(before.len() + 1);
            let number = port.parse().map_err(|_| {
                Word { text: port, ..place }.wrong(format!("{port:?} is no port: 0 to 65535"))
            })?;
            Some(number)
        }
        _ => None,
    };
    Ok(RequestQuestion {
        scheme,
        method: String::new(),
        authority: authority.to_owned(),
        port,
        target: target.to_owned(),
        headers: Vec::new(),
        client: None,
        listener: None,
        sni: None,
    })
}

impl RequestQuestion {
    fn option(&mut self, word: Word<'_>) -> Result<(), QuestionError> {
        let Some((key, value)) = word.text.split_once('=') else {
            return Err(word.wrong(format!("{:?} is no option: options are key=value", word.text)));
        };
        let place = word.after(key.len() + 1);
        let twice = || Err(word.wrong(format!("{key} is said twice")));
        match key {
            "from" if self.client.is_some() => return twice(),
            "from" => {
                let address = value.parse();
                self.client = Some(address.map_err(|_| place.wrong(format!("{value:?} is no IP address")))?);
            }
            "listener" if self.listener.is_some() => return twice(),
            "listener" => self.listener = Some(value.to_owned()),
            "sni" if self.sni.is_some() => return twice(),
            "sni" if self.scheme != Scheme::Https => {
                return Err(word.wrong("only with https:// does a handshake ask for a name of its own"));
            }
            "sni" => self.sni = Some(value.to_owned()),
            _ => match key.strip_prefix("header:") {
                Some("") => return Err(word.wrong("the header has no name")),
                Some(_) if self.scheme == Scheme::Tls => {
                    return Err(word.wrong("a TLS client that is passed on shows no header"));
                }
                Some(name) => self.headers.push((name.to_owned(), value.trim().to_owned())),
                None => {
                    let message = format!("{key:?} is no option: header:NAME, from, listener or sni");
                    return Err(word.wrong(message));
                }
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_said_back_and_means_the_same() {
        for (text, back) in [
            ("http://a", "GET http://a"),
            ("tls://a:5433 listener=db", "tls://a:5433 listener=db"),
            ("https://a/b?c sni=x.a", "GET https://a/b?c sni=x.a"),
            (" POST  http://a:8080/x?y=z ", "POST http://a:8080/x?y=z"),
            (
                "http://[::1]:80/ header:X-A=1 \"header:B=a  b=c\" from=::1 listener=web header:x-a=2",
                "GET http://[::1]:80/ header:X-A=1 \"header:B=a  b=c\" header:x-a=2 from=::1 listener=web",
            ),
        ] {
            let question: RequestQuestion = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(question.to_string(), back, "{text}");
            assert_eq!(back.parse(), Ok(question), "{back}");
        }
        let question: RequestQuestion = "http://[::1]:81".parse().unwrap();
        assert_eq!((question.port, &*question.authority, &*question.target), (Some(81), "[::1]:81", ""));
        assert_eq!("http://[::1]/".parse::<RequestQuestion>().unwrap().port, None);
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        for (text, place, message) in [
            ("", (1, 1), "URL is missing"),
            ("GET", (4, 1), "URL is missing"),
            ("G T http://a", (3, 1), "begins with http://"),
            ("G(T http://a", (1, 3), "no method"),
            ("ftp://a", (1, 7), "begins with http://"),
            ("http://a sni=b", (10, 5), "only with https://"),
            ("https://a sni=b sni=b", (17, 5), "twice"),
            ("http:///x", (8, 2), "host is missing"),
            ("GET tls://a", (1, 3), "no method"),
            ("tls://a/x", (8, 2), "no path"),
            ("tls://a header:x=1", (9, 10), "no header"),
            ("http://a:b/", (10, 1), "no port"),
            ("http://a/#x", (9, 3), "fragment"),
            ("http://a/ x", (11, 1), "key=value"),
            ("http://a/ color=red", (11, 9), "no option"),
            ("http://a/ from=b", (16, 1), "no IP address"),
            ("http://a/ from=::1 from=::1", (20, 8), "twice"),
            ("http://a/ header:=1", (11, 9), "no name"),
            ("http://a/ \"header:a=1", (11, 11), "no end"),
            ("http://a/ \"header:a=1\r\n\"", (22, 1), "control"),
        ] {
            let error = text.parse::<RequestQuestion>().unwrap_err();
            assert_eq!((error.column, error.width), place, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_said_makes_us_panic(text in "([A-Z\"]{0,3} ?)?(https?://)?[ -~ä]{0,40}") {
            _ = text.parse::<RequestQuestion>();
        }
    }
}
