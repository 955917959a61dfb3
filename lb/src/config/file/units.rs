//! Sizes and durations: strings of a whole number and a unit.

use std::{ops::RangeInclusive, time::Duration};

use super::findings::Fault;
use crate::config::PerTime;

/// Rule for durations, where something else than a string was written.
pub(super) const DURATION: &str = "a duration is a string with a unit, such as \"60s\" or \"5m\"";
/// Rule for sizes, where something else than a string was written.
pub(super) const SIZE: &str = "a size is a string with a unit, such as \"32KiB\" or \"1MiB\"";

const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// As they are written behind a number.
pub(super) fn duration_units() -> impl Iterator<Item = &'static str> {
    DURATION_UNITS.into_iter().map(|(name, _)| name)
}

/// As they are written behind a number.
pub(super) fn size_units() -> impl Iterator<Item = &'static str> {
    SIZE_UNITS.into_iter().map(|(name, _)| name)
}

/// `250ms`, `2s`, `5m`, `1h`, within bounds.
pub(super) fn duration(text: &str, bounds: &RangeInclusive<Duration>) -> Result<Duration, Fault> {
    let (number, unit) = split(text);
    if unit.is_empty() {
        return Err(Fault::new("a duration needs a unit, such as \"60s\" or \"5m\""));
    }
    let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let (Ok(number), Some(factor)) = (number.parse::<u64>(), factor) else {
        return Err(Fault::new(
            "a duration is a whole number and ms, s, m or h, such as \"250ms\" or \"5m\"",
        ));
    };
    let duration = number.checked_mul(factor).map(Duration::from_millis);
    duration.filter(|duration| bounds.contains(duration)).ok_or_else(|| {
        Fault::new(format!(
            "must be from {} to {}",
            show_duration(*bounds.start()),
            show_duration(*bounds.end())
        ))
    })
}

/// `512B`, `32KiB`, `1MiB`, `2GiB`, within bounds.
pub(super) fn size(text: &str, bounds: &RangeInclusive<u64>) -> Result<u64, Fault> {
    let (number, unit) = split(text);
    if unit.is_empty() {
        return Err(Fault::new("a size needs a unit, such as \"32KiB\" or \"1MiB\""));
    }
    let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let (Ok(number), Some(factor)) = (number.parse::<u64>(), factor) else {
        let fault = Fault::new("a size is a whole number and B, KiB, MiB or GiB, such as \"32KiB\"");
        let meant = match unit.to_ascii_lowercase().as_str() {
            "b" => "B",
            "k" | "kb" | "kib" => "KiB",
            "m" | "mb" | "mib" => "MiB",
            "g" | "gb" | "gib" => "GiB",
            _ => return Err(fault),
        };
        return Err(match number.parse::<u64>() {
            Ok(number) => fault.suggest(Some(format!("{number}{meant}"))),
            Err(_) => fault,
        });
    };
    number.checked_mul(factor).filter(|size| bounds.contains(size)).ok_or_else(|| {
        Fault::new(format!("must be from {} to {}", show_size(*bounds.start()), show_size(*bounds.end())))
    })
}

/// Rule for rates, where something else than a string was written.
pub(super) const RATE: &str = "a rate is a string with a unit, such as \"200/s\" or \"600/m\"";
/// Largest rate, per second.
pub(super) const RATE_MAX: u64 = 10_000_000;

/// `200/s`, `600/m`, in whole numbers per second; at least one.
pub(super) fn rate(text: &str) -> Result<u32, Fault> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "/s" => 1,
        "/m" => 60,
        "" => {
            return Err(
                Fault::new(RATE).suggest(number.parse::<u32>().ok().map(|number| format!("{number}/s")))
            );
        }
        _ => return Err(Fault::new("a rate is a whole number and /s or /m, such as \"200/s\"")),
    };
    let rate = number
        .parse::<u64>()
        .ok()
        .filter(|number| number.is_multiple_of(seconds))
        .map(|number| number / seconds);
    match rate {
        Some(rate @ 1..=RATE_MAX) => Ok(rate as u32),
        _ => Err(Fault::new(format!("must be a whole number per second, from 1/s to {RATE_MAX}/s"))),
    }
}

/// `5/s`, `600/m`, `10/h`; at least one, and at most a million a second.
pub(super) fn per_time(text: &str) -> Result<PerTime, Fault> {
    let rule = "a rate is a whole number and /s, /m or /h, such as \"100/s\" or \"5/m\"";
    let (number, unit) = split(text);
    let seconds = match unit {
        "/s" => 1,
        "/m" => 60,
        "/h" => 3600,
        "" => {
            let meant = number.parse::<u32>().ok().map(|number| format!("{number}/s"));
            return Err(Fault::new(rule).suggest(meant));
        }
        _ => return Err(Fault::new(rule)),
    };
    match number.parse::<u32>() {
        Ok(number @ 1..=1_000_000) => Ok(PerTime { number, seconds }),
        _ => Err(Fault::new("must be from 1 to 1000000, each /s, /m or /h")),
    }
}

/// Leading digits, and what follows.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// In the largest unit that divides it.
pub(in crate::config) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

pub(in crate::config) fn show_size(size: u64) -> String {
    show(size, &SIZE_UNITS)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = |&&(_, factor): &&(&str, u64)| amount >= factor && amount.is_multiple_of(factor);
    match units.iter().find(fits) {
        Some((unit, factor)) => format!("{}{unit}", amount / factor),
        None => amount.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms", &ANY).unwrap(), Duration::from_millis(250));
        assert_eq!(duration("2s", &ANY).unwrap(), Duration::from_secs(2));
        assert_eq!(duration("5m", &ANY).unwrap(), Duration::from_secs(300));
        assert_eq!(duration("1h", &ANY).unwrap(), Duration::from_secs(3600));
        for bad in [
            "60",
            "",
            "s",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "1s ",
            "1S",
            "1d",
            "1min",
            "1s1s",
            "99999999999999999999s",
        ] {
            assert!(duration(bad, &ANY).is_err(), "{bad:?}");
        }
        assert!(duration(&format!("{}h", u64::MAX), &ANY).is_err());
    }

    #[test]
    fn rates_have_units() {
        assert_eq!((rate("1/s").unwrap(), rate("600/m").unwrap()), (1, 10));
        assert_eq!(rate("200").unwrap_err().suggestion.as_deref(), Some("200/s"));
        for bad in
            ["", "/s", "0/s", "1/h", "1 /s", "61/m", "1.5/s", "-1/s", "10000001/s", "99999999999999999999/s"]
        {
            assert!(rate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("512B", &(0..=u64::MAX)).unwrap(), 512);
        assert_eq!(size("32KiB", &(0..=u64::MAX)).unwrap(), 32 << 10);
        assert_eq!(size("1MiB", &(0..=u64::MAX)).unwrap(), 1 << 20);
        assert_eq!(size("32k", &(0..=u64::MAX)).unwrap_err().suggestion.as_deref(), Some("32KiB"));
        assert_eq!(size("1MB", &(0..=u64::MAX)).unwrap_err().suggestion.as_deref(), Some("1MiB"));
        for bad in ["32768", "", "KiB", "1.5MiB", "1 MiB", "1TiB", "x"] {
            assert!(size(bad, &(0..=u64::MAX)).is_err(), "{bad:?}");
        }
        assert_eq!(size("2MiB", &(1024..=1 << 20)).unwrap_err().message, "must be from 1KiB to 1MiB");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0..u64::MAX / 2, bytes in any::<u64>()) {
            let span = Duration::from_millis(ms);
            if ms > 0 {
                prop_assert_eq!(duration(&show_duration(span), &ANY).unwrap(), span);
            }
            if bytes > 0 {
                prop_assert_eq!(size(&show_size(bytes), &(0..=u64::MAX)).unwrap(), bytes);
            }
        }
    }
}
