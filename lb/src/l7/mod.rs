//! HTTP: heads, bodies, routes, exchanges. Sans-io: bytes in, decisions and bytes out; never an fd, a clock
//! or a random number.

pub mod answer;
pub mod authority;
pub mod cookie;
pub mod edit;
pub mod exchange;
pub mod grpc;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod key;
pub mod path;
pub mod rewrite;
pub mod route;
