//! The scenarios, a file each.

mod grpc_unary;
mod h2_small;
mod http1_churn;
mod http1_sizes;
mod http1_small;
mod idle;
mod l4_forward;
mod l4_program;
mod l4_relay;
mod l4_table;
mod latency;
mod program_object;
mod reload;
mod scale;
mod syscalls;
mod tcp_bulk;
mod tcp_churn;
mod tls_bulk;
mod tls_handshake;
mod tls_small;

use anyhow::Result;

use crate::{context::Context, peers::Subject};

/// Something to compare subjects by.
///
/// A scenario states its metrics as constants, starts what it needs, and lets [`Context::rounds`] call it
/// for each subject in turn: that is what interleaves, repeats and drops void runs.
pub(crate) trait Scenario: Sync {
    /// As typed: `cargo xtask bench NAME`.
    fn name(&self) -> &'static str;

    /// What is measured, in one line.
    fn description(&self) -> &'static str;

    /// The subjects it makes sense for, `lb` first. Those that are asked for and installed are in
    /// [`Context::subjects`]; the others are named in the notes. Empty: it brings its own.
    fn subjects(&self) -> Vec<Subject> {
        Vec::new()
    }

    /// Measures, and leaves what it found in the context's samples.
    ///
    /// # Errors
    /// The scenario as a whole cannot run; why stands in the report in its place.
    fn run(&self, context: &mut Context<'_>) -> Result<()>;
}

/// All of them, in the order of the report.
pub(crate) const ALL: &[&dyn Scenario] = &[
    &http1_small::Http1Small,
    &http1_sizes::Http1Sizes,
    &http1_churn::Http1Churn,
    &tcp_bulk::TcpBulk,
    &tcp_churn::TcpChurn,
    &latency::Latency,
    &idle::IdleConnections,
    &scale::Scale,
    &reload::Reload,
    &syscalls::Syscalls,
    &l4_program::L4Program,
    &l4_forward::L4Forward,
    &l4_table::L4Table,
    &tls_small::TlsSmall,
    &tls_handshake::TlsHandshake,
    &tls_bulk::TlsBulk,
    &idle::IdleTls,
    &h2_small::H2Small,
    &grpc_unary::GrpcUnary,
];

/// The one of this name.
pub(crate) fn find(name: &str) -> Option<&'static dyn Scenario> {
    ALL.iter().copied().find(|scenario| scenario.name() == name)
}
