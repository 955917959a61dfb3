//! Whether a second report says what the first said: each ratio of one lies in the spread that the other states.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// What is read of `report.json`.
#[derive(Deserialize)]
struct Written {
    ratios: Vec<Ratio>,
}

#[derive(Clone, Deserialize)]
struct Ratio {
    scenario: String,
    metric: String,
    subject: String,
    versus: String,
    ratio_median: f64,
    ratio_min: f64,
    ratio_max: f64,
}

type Key = (String, String, String, String);

/// Compares two reports by their ratios and says which disagree: those whose ranges do not meet, and, apart, those
/// that meet but change sides (one says cheaper, the other dearer, both beyond their range).
///
/// # Errors
/// A file cannot be read, or is no report.
pub(crate) fn agree(one: &Path, two: &Path) -> Result<String> {
    let (one, two) = (read(one)?, read(two)?);
    Ok(compare(&one, &two))
}

fn read(path: &Path) -> Result<BTreeMap<Key, Ratio>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let written: Written =
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?;
    let key = |ratio: &Ratio| {
        let Ratio { scenario, metric, subject, versus, .. } = ratio.clone();
        (scenario, metric, subject, versus)
    };
    Ok(written.ratios.into_iter().map(|ratio| (key(&ratio), ratio)).collect())
}

fn compare(one: &BTreeMap<Key, Ratio>, two: &BTreeMap<Key, Ratio>) -> String {
    let both: Vec<(&Key, &Ratio, &Ratio)> =
        one.iter().filter_map(|(key, first)| Some((key, first, two.get(key)?))).collect();
    let apart: Vec<_> = both.iter().filter(|(_, first, second)| !meet(first, second)).collect();
    let turned: Vec<_> = both.iter().filter(|(_, first, second)| turn(first, second)).collect();
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{} ratios in both reports; the ranges of {} meet, {} do not; {} change sides.",
        both.len(),
        both.len() - apart.len(),
        apart.len(),
        turned.len()
    );
    for ((scenario, metric, subject, versus), first, second) in apart {
        let _ = writeln!(
            text,
            "- {scenario} {metric}, {subject} / {versus}: {:.2} ({:.2}-{:.2}), then {:.2} ({:.2}-{:.2})",
            first.ratio_median,
            first.ratio_min,
            first.ratio_max,
            second.ratio_median,
            second.ratio_min,
            second.ratio_max
        );
    }
    text
}

fn meet(one: &Ratio, two: &Ratio) -> bool {
    one.ratio_min <= two.ratio_max && two.ratio_min <= one.ratio_max
}

/// Both are sure, and of opposite things.
fn turn(one: &Ratio, two: &Ratio) -> bool {
    (one.ratio_max < 1.0 && two.ratio_min > 1.0) || (one.ratio_min > 1.0 && two.ratio_max < 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratios(of: &[(&str, [f64; 3])]) -> BTreeMap<Key, Ratio> {
        let ratio = |&(metric, [ratio_min, ratio_median, ratio_max]): &(&str, [f64; 3])| {
            let [scenario, subject, versus] = ["small", "lb", "nginx"].map(str::to_owned);
            let key = (scenario.clone(), metric.to_owned(), subject.clone(), versus.clone());
            let metric = metric.to_owned();
            (key, Ratio { scenario, metric, subject, versus, ratio_median, ratio_min, ratio_max })
        };
        of.iter().map(ratio).collect()
    }

    #[test]
    fn what_does_not_meet_is_named() {
        let one = ratios(&[("a", [0.8, 0.9, 1.0]), ("b", [0.5, 0.6, 0.7]), ("gone", [1.0, 1.0, 1.0])]);
        let two = ratios(&[("a", [0.95, 1.0, 1.1]), ("b", [1.2, 1.3, 1.4])]);
        let text = compare(&one, &two);
        assert!(
            text.starts_with("2 ratios in both reports; the ranges of 1 meet, 1 do not; 1 change sides.")
        );
        assert!(text.contains("- small b, lb / nginx: 0.60 (0.50-0.70), then 1.30 (1.20-1.40)"), "{text}");
    }
}
