//! Translated flows on the host: there and back again, races between two cores, and a box full of flows.

mod identity;
mod model;
mod races;
