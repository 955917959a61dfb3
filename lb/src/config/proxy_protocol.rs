//! PROXY headers: what listeners expect of proxies in front of them, and what backends get.

/// `listener.proxy_protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyHeaders {
    /// None is looked for.
    #[default]
    Off,
    /// Trusted proxies may send one; from everybody else none is looked for.
    Accept,
    /// Trusted proxies send one, and nobody else may connect.
    Require,
}

/// `pool.proxy_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with a checksum and a unique id.
    V2,
}
