//! The packet programs: rows on the pure library and on the object, real frames, the object as the loader sees it.
//!
//! One program, since the verifier takes its time: what one test has loaded serves the next.

mod cookie;
mod nat;
mod object;
mod probe;
mod rows;
mod wire;
mod witness;
