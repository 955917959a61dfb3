//! HTTP/2 (RFC 9113) without its wire: a [`Connection`] takes bytes and calls, and gives bytes and [`Events`].
//!
//! It never reads the clock, does no I/O and draws no random numbers. Nothing is allocated for a frame, and nothing for a
//! stream beyond a slot that is used again: heads are decoded into one flat buffer and told of in place, frames are written
//! once, where they are sent from. What a peer may make it hold is bounded by its [`Settings`]; what costs us much and the
//! peer little by its [`Budgets`].
//!
//! ```
//! use std::time::Instant;
//! use lb_http2::{By, Code, Connection, Events, Flaw, Head, Request, Settings, Stream, TooLarge};
//!
//! /// Whoever is to be answered.
//! #[derive(Default)]
//! struct Asked(Vec<Stream>);
//!
//! impl Events for Asked {
//!     fn head(&mut self, stream: Stream, head: &Head<'_>, _ends: bool) {
//!         assert_eq!(head.path(), Some(&b"/"[..]));
//!         self.0.push(stream);
//!     }
//!     fn too_large(&mut self, _: Stream, _: TooLarge, _: bool) {}
//!     fn data(&mut self, _: Stream, _: &[u8], _: bool) {}
//!     fn trailers(&mut self, _: Stream, _: &Head<'_>) {}
//!     fn reset(&mut self, _: Stream, _: Code, _: By) {}
//!     fn rejected(&mut self, _: u32, _: Flaw) {}
//!     fn window(&mut self, _: Stream) {}
//!     fn settings(&mut self) {}
//!     fn goaway(&mut self, _: u32, _: Code) {}
//! }
//!
//! let mut client = Connection::client(Settings::default());
//! let request = Request { method: b"GET", scheme: b"http", authority: b"a.test", path: b"/", protocol: b"" };
//! client.send_request(&request, true, |_| {}).unwrap();
//!
//! let (mut server, mut asked) = (Connection::server(Settings::default()), Asked::default());
//! server.receive(client.pending(), Instant::now(), &mut asked).unwrap();
//! server.send_response(asked.0[0], 200, false, |fields| fields.push(b"server", b"x").unwrap()).unwrap();
//! assert_eq!(server.send_data(asked.0[0], b"hello", true), Ok(5));
//! assert_eq!(server.streams(), 0);
//! ```

#![forbid(unsafe_code)]

mod code;
mod connection;
mod events;
mod fault;
mod field;
mod fields;
mod frame;
mod head;
mod hpack;
mod meter;
mod out;
mod settings;
mod streams;

pub use code::Code;
pub use connection::{Connection, Gone, Refusal};
pub use events::{By, Events};
pub use fault::Fault;
pub use field::{Flaw, Known};
pub use fields::{Field, TooLarge};
pub use head::Head;
pub use hpack::{Error, FieldWriter, Refused, Request};
pub use meter::{Abuse, Budgets};
pub use settings::Settings;
pub use streams::Stream;
