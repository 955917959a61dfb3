//! Namespace tests: real clients, real servers, the real daemon.

mod harness;
