//! Tables for a terminal and for the README.

use std::fmt::Write as _;

use super::{Found, OURS, Report, full_name, number, place, wiring};
use crate::sample::{Better, Metric, Spread};

/// The report as Markdown.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write_report(&mut text, report);
    text
}

fn write_report(text: &mut String, report: &Report) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(
        text,
        "\n{}, {} cores, {} MiB; Linux {}, {}; commit {}; {}; XDP: {}; \
         {:.0} s, {:.0} % busy with other things before.\n",
        machine.cpu,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        machine.distribution,
        machine.commit,
        machine.congestion_control,
        machine.xdp_mode,
        machine.took_s,
        machine.background_percent,
    )?;
    for (name, version) in &machine.versions {
        writeln!(text, "- {name}: {}", version.as_deref().unwrap_or("not installed"))?;
    }
    for found in &report.found {
        scenario(text, found)?;
    }
    Ok(())
}

fn scenario(text: &mut String, found: &Found) -> std::fmt::Result {
    writeln!(text, "\n## {}\n\n{} ({}).", found.scenario, found.description, wiring(found.wiring))?;
    if let Some(failure) = &found.failure {
        writeln!(text, "\n**Failed:** {failure}")?;
    }
    let (curves, bars): (Vec<Metric>, Vec<Metric>) =
        found.metrics().into_iter().partition(|metric| metric.axis.is_some());
    if !bars.is_empty() {
        summary(text, found, &bars)?;
    }
    for metric in curves {
        curve(text, found, metric)?;
    }
    asked(text, found)?;
    if !found.samples.notes.is_empty() {
        writeln!(text)?;
        for note in &found.samples.notes {
            writeln!(text, "- {note}")?;
        }
    }
    Ok(())
}

/// A row per subject: medians with their spread, and our share of each cost.
fn summary(text: &mut String, found: &Found, metrics: &[Metric]) -> std::fmt::Result {
    let compared: Vec<Metric> =
        metrics.iter().copied().filter(|metric| metric.better == Better::Less).collect();
    let mut subjects: Vec<&str> = Vec::new();
    for &metric in metrics {
        for subject in found.subjects(metric) {
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
    }
    write!(text, "\n| subject |")?;
    for metric in metrics {
        write!(text, " {}, {} |", metric.name, metric.unit)?;
    }
    let ours = subjects.contains(&OURS);
    for metric in compared.iter().filter(|_| ours) {
        write!(text, " {}: lb / it |", metric.name)?;
    }
    writeln!(text)?;
    let columns = metrics.len() + if ours { compared.len() } else { 0 };
    writeln!(text, "|---|{}", "--:|".repeat(columns))?;
    for subject in subjects {
        write!(text, "| {subject} |")?;
        for &metric in metrics {
            let spread = found
                .series(metric, subject, 0.0)
                .and_then(|series| Spread::of(series.rounds.values().copied()));
            write!(text, " {} |", spread.map_or_else(|| "-".to_owned(), with_range))?;
        }
        for &metric in compared.iter().filter(|_| ours) {
            let ratio = (subject != OURS).then(|| found.ratio(metric, 0.0, OURS, subject)).flatten();
            write!(text, " {} |", ratio.map_or_else(String::new, with_range))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

/// A row per subject, a column per place; our share in brackets.
fn curve(text: &mut String, found: &Found, metric: Metric) -> std::fmt::Result {
    let axis = metric.axis.unwrap_or_default();
    let places = found.places(metric);
    write!(text, "\n| {}, {} |", metric.name, metric.unit)?;
    for &at in &places {
        write!(text, " {} |", place(axis, at))?;
    }
    writeln!(text, "\n|---|{}", "--:|".repeat(places.len()))?;
    for subject in found.subjects(metric) {
        write!(text, "| {subject} |")?;
        for &at in &places {
            let series = found.series(metric, subject, at);
            let spread = series.and_then(|series| Spread::of(series.rounds.values().copied()));
            let ratio = (subject != OURS).then(|| found.ratio(metric, at, OURS, subject)).flatten();
            let value = spread.map_or_else(|| "-".to_owned(), |spread| number(spread.median));
            match ratio {
                Some(ratio) => write!(text, " {value} ({}) |", number(ratio.median))?,
                None => write!(text, " {value} |")?,
            }
        }
        writeln!(text)?;
    }
    if found.subjects(metric).contains(&OURS) {
        writeln!(text, "\nIn brackets: lb / it, median of the rounds.")?;
    }
    Ok(())
}

/// The ratios that the scenario asks for besides those of ours over the others.
fn asked(text: &mut String, found: &Found) -> std::fmt::Result {
    let mut lines = Vec::new();
    for metric in found.metrics() {
        for (subject, versus) in found.pairs(metric).into_iter().filter(|(subject, _)| *subject != OURS) {
            for at in found.places(metric) {
                if let Some(ratio) = found.ratio(metric, at, subject, versus) {
                    lines.push(format!(
                        "{}: {subject} / {versus}: {}",
                        full_name(metric, at),
                        with_range(ratio)
                    ));
                }
            }
        }
    }
    if !lines.is_empty() {
        writeln!(text)?;
    }
    lines.into_iter().try_for_each(|line| writeln!(text, "- {line}"))
}

/// `12.3 (11.0-14.1)`; without brackets where there is no spread.
fn with_range(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    if min == max {
        return number(median);
    }
    format!("{} ({}-{})", number(median), number(min), number(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_show_spread_ratio_and_notes() {
        let text = markdown(&super::super::tests::report());
        assert!(text.contains("| lb | 12.5 (10.0-15.0) | 99.0 |  |"), "{text}");
        assert!(text.contains("| nginx | 25.0 (20.0-30.0) | 99.0 | 0.50 |"), "{text}");
        assert!(text.contains("| nginx | 20.0 (0.50) | 1\u{202f}000 (0.50) |"), "{text}");
        assert!(text.contains("- cpu: nginx / lb: 2.00\n"), "{text}");
        assert!(text.contains("- envoy: not installed"), "{text}");
    }
}
