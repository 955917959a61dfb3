//! Where log lines go: standard error, for people or for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::args::{Log, LogFormat};

/// Begins to log; to be called once.
///
/// # Errors
/// The level does not parse; the message quotes it.
pub(super) fn start(log: &Log) -> Result<(), String> {
    // A bare level is ours; libraries say what an operator would act on from `warn` on.
    let wanted = if log.log.contains(['=', ',']) { log.log.clone() } else { format!("warn,lb={}", log.log) };
    let filter: EnvFilter =
        wanted.parse().map_err(|error| format!("--log or LB_LOG {:?}: {error}", log.log))?;
    let is_terminal = io::stderr().is_terminal();
    let format = log.log_format.unwrap_or(if is_terminal { LogFormat::Human } else { LogFormat::Json });
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Human => subscriber.with_ansi(is_terminal).with_target(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    }
    .map_err(|error| error.to_string())
}
