//! The command line: arguments, logging, answers on a terminal. No logic.

mod args;
mod logging;
mod render;
