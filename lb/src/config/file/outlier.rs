//! `pool.outlier` and `pool.panic`.

use std::ops::RangeInclusive;

use super::{
    process::TIMEOUTS,
    reader::{Fault, Table},
};
use crate::config::Outlier;

/// Rule for percentages.
pub(super) const PERCENT: &str = "must be a whole percentage from \"1%\" to \"100%\"";
/// Rule for multiples.
const TIMES: &str = "must be a multiple from \"1.1x\" to \"1000x\", such as \"3x\"";
/// Multiples, in tenths.
const TENTHS: RangeInclusive<u32> = 11..=10_000;

pub(super) fn read(table: &Table<'_>) -> Outlier {
    let default = Outlier::default();
    let number = |key, first, default: u32| {
        table
            .value(key)
            .and_then(|value| value.integer(first..1_000_001))
            .map_or(default, |at| at.value as u32)
    };
    let duration = |key, default| {
        table.value(key).and_then(|value| value.duration(&TIMEOUTS)).map_or(default, |at| at.value)
    };
    let share = |key| table.value(key).and_then(|value| value.parsed(PERCENT, percent)).map(|at| at.value);
    let latency = table.value("latency").and_then(|value| value.parsed(TIMES, times));
    let outlier = Outlier {
        consecutive_errors: number("consecutive_errors", 0, default.consecutive_errors),
        error_percent: share("error_ratio"),
        latency_tenths: latency.map(|at| at.value),
        requests: number("requests", 1, default.requests),
        window: duration("window", default.window),
        ejection: duration("ejection", default.ejection),
        ejection_max: duration("ejection_max", default.ejection_max),
        max_ejected_percent: share("max_ejected").unwrap_or(default.max_ejected_percent),
    };
    if let (Some(value), true) = (table.value("ejection_max"), outlier.ejection_max < outlier.ejection) {
        value.fault(Fault::new("must be at least `ejection`"));
    }
    let looks = outlier.error_percent.is_some() || outlier.latency_tenths.is_some();
    if let (Some(value), false, 0) = (table.value("consecutive_errors"), looks, outlier.consecutive_errors) {
        value.fault(Fault::new("without `error_ratio` and `latency` nobody is ever taken out"));
    }
    // A default that is shorter than a long ejection gives way to it.
    Outlier { ejection_max: outlier.ejection_max.max(outlier.ejection), ..outlier }
}

pub(super) fn percent(text: &str) -> Result<u32, Fault> {
    let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(percent @ 1..=100) => Ok(percent),
        _ => Err(Fault::new(PERCENT)),
    }
}

/// `3x`, `2.5x`, in tenths.
fn times(text: &str) -> Result<u32, Fault> {
    let number = text.strip_suffix('x').unwrap_or_default();
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let tenths = match is_number(whole) && is_number(tenth) && tenth.len() == 1 {
        true => format!("{whole}{tenth}").parse().ok(),
        false => None,
    };
    tenths.filter(|tenths| TENTHS.contains(tenths)).ok_or_else(|| Fault::new(TIMES))
}
