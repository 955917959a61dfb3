//! SVG: bars with their spread, and curves over an axis.

use std::fmt::Write as _;

use super::{Found, escape::escape, number, place};
use crate::sample::{Better, Metric, Spread};

const WIDTH: f64 = 860.0;
/// Least width of the names beside bars, and how much each character takes.
const LABEL_MIN: f64 = 150.0;
const CHARACTER: f64 = 6.5;
const RIGHT: f64 = 130.0;
const BAR: f64 = 24.0;
const HEIGHT: f64 = 320.0;
/// Values further apart than that are drawn on a logarithmic scale.
const LINEAR_MAX: f64 = 20.0;

/// Ours first, then theirs; a peer's defaults are drawn lighter than its tuned settings.
fn colour(subject: &str) -> (&'static str, f64) {
    let (peer, opacity) = subject.strip_suffix("-defaults").map_or((subject, 1.0), |peer| (peer, 0.5));
    let colour = match peer {
        "lb" => "#d1495b",
        "nginx" => "#2e8b57",
        "haproxy" => "#30638e",
        "envoy" => "#8e5ea2",
        "pingora" => "#d98b2b",
        "caddy" => "#1b9aaa",
        _ => "#5c6370",
    };
    (colour, opacity)
}

fn head(text: &mut String, height: f64, metric: Metric) -> std::fmt::Result {
    let way = match metric.better {
        Better::Less => "less is better",
        Better::More => "more is better",
        Better::Neither => "for information",
    };
    write!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"system-ui,sans-serif\" font-size=\"12\">\
         <text x=\"0\" y=\"14\" font-weight=\"600\">{}, {} ({way})</text>",
        escape(metric.name),
        escape(metric.unit)
    )
}

/// A bar per subject, from zero, with whiskers from minimum to maximum.
pub(super) fn bars(found: &Found, metric: Metric) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write_bars(&mut text, found, metric);
    text
}

fn write_bars(text: &mut String, found: &Found, metric: Metric) -> std::fmt::Result {
    let rows: Vec<(&str, Spread)> = found
        .subjects(metric)
        .into_iter()
        .filter_map(|subject| {
            let series = found.series(metric, subject, 0.0)?;
            Some((subject, Spread::of(series.rounds.values().copied())?))
        })
        .collect();
    let most = rows.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let longest = rows.iter().map(|(subject, _)| subject.chars().count()).max().unwrap_or(0);
    let label = (longest as f64 * CHARACTER + 8.0).max(LABEL_MIN);
    let x = |value: f64| label + value.max(0.0) / most * (WIDTH - label - RIGHT);
    head(text, 30.0 + BAR * rows.len() as f64, metric)?;
    for (index, (subject, Spread { median, min, max })) in rows.into_iter().enumerate() {
        let top = 24.0 + BAR * index as f64;
        let middle = top + BAR / 2.0 - 2.0;
        let (fill, opacity) = colour(subject);
        write!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{label:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{fill}\" \
             fill-opacity=\"{opacity}\"/>\
             <path d=\"M{:.1} {middle:.1}H{:.1}M{:.1} {:.1}V{:.1}M{:.1} {:.1}V{:.1}\" stroke=\"#1c1f24\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            label - 8.0,
            middle + 4.0,
            escape(subject),
            x(median) - label,
            BAR - 5.0,
            x(min),
            x(max),
            x(min),
            middle - 4.0,
            middle + 4.0,
            x(max),
            middle - 4.0,
            middle + 4.0,
            x(max) + 8.0,
            middle + 4.0,
            number(median)
        )?;
    }
    write!(text, "</svg>")
}

/// A linear or logarithmic scale from values to points.
#[derive(Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    logarithmic: bool,
}

impl Scale {
    /// Logarithmic where all values are positive and far apart; linear ones of values begin at zero.
    fn over(values: &[f64], start: f64, end: f64, from_zero: bool) -> Self {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let logarithmic = least > 0.0 && most / least > LINEAR_MAX;
        let (from, to) = match (logarithmic, from_zero) {
            (true, _) => (least, most),
            (false, true) => (0.0, most.max(f64::MIN_POSITIVE)),
            (false, false) if least == most => (least - 0.5, most + 0.5),
            (false, false) => (least, most),
        };
        Self { from, to, start, end, logarithmic }
    }

    fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.start + share * (self.end - self.start)
    }

    /// Four values evenly apart.
    fn marks(&self) -> [f64; 4] {
        [0.0, 1.0, 2.0, 3.0].map(|step: f64| {
            let share = step / 3.0;
            if self.logarithmic {
                self.from * (self.to / self.from).powf(share)
            } else {
                self.from + share * (self.to - self.from)
            }
        })
    }
}

/// A line per subject over the metric's axis. Percentiles are drawn by the number of nines, so that the tail shows.
pub(super) fn curves(found: &Found, metric: Metric, axis: &str) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write_curves(&mut text, found, metric, axis);
    text
}

fn write_curves(text: &mut String, found: &Found, metric: Metric, axis: &str) -> std::fmt::Result {
    let along = |at: f64| if axis == "percentile" { 1.0 / (100.0 - at.min(99.999)) } else { at };
    let places = found.places(metric);
    let subjects = found.subjects(metric);
    let median = |subject: &str, at: f64| {
        let series = found.series(metric, subject, at)?;
        Spread::of(series.rounds.values().copied())
    };
    let values: Vec<f64> = subjects
        .iter()
        .flat_map(|subject| places.iter().filter_map(move |&at| median(subject, at)))
        .map(|spread| spread.median)
        .collect();
    if values.is_empty() {
        return Ok(());
    }
    let steps: Vec<f64> = places.iter().map(|&at| along(at)).collect();
    let x = Scale::over(&steps, 60.0, WIDTH - RIGHT - 20.0, false);
    let y = Scale::over(&values, HEIGHT - 40.0, 34.0, true);
    head(text, HEIGHT, metric)?;
    for value in y.marks() {
        let level = y.at(value);
        write!(
            text,
            "<path d=\"M60 {level:.1}H{:.1}\" stroke=\"#d8dbe0\"/>\
             <text x=\"54\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT - 20.0,
            level + 4.0,
            number(value)
        )?;
    }
    for &at in &places {
        write!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x.at(along(at)),
            HEIGHT - 20.0,
            escape(&place(axis, at))
        )?;
    }
    for (index, subject) in subjects.iter().enumerate() {
        let spreads: Vec<(f64, Spread)> =
            places.iter().filter_map(|&at| Some((x.at(along(at)), median(subject, at)?))).collect();
        line(text, subject, &spreads, &y)?;
        let (stroke, opacity) = colour(subject);
        let level = 40.0 + 18.0 * index as f64;
        write!(
            text,
            "<path d=\"M{:.1} {level:.1}h18\" stroke=\"{stroke}\" stroke-opacity=\"{opacity}\" stroke-width=\"3\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT + 24.0,
            level + 4.0,
            escape(subject)
        )?;
    }
    write!(text, "</svg>")
}

/// The medians joined, with a whisker at each.
fn line(text: &mut String, subject: &str, spreads: &[(f64, Spread)], y: &Scale) -> std::fmt::Result {
    let (stroke, opacity) = colour(subject);
    let mut path = String::new();
    for (index, (x, spread)) in spreads.iter().enumerate() {
        write!(path, "{}{x:.1} {:.1}", if index == 0 { 'M' } else { 'L' }, y.at(spread.median))?;
    }
    for (x, Spread { min, max, .. }) in spreads {
        // A whisker may leave the scale, which is that of the medians: cut it there.
        let level = |value: &f64| y.at(value.clamp(y.from, y.to));
        write!(path, "M{x:.1} {:.1}V{:.1}", level(min), level(max))?;
    }
    write!(
        text,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{stroke}\" stroke-opacity=\"{opacity}\" stroke-width=\"1.8\"/>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_reach_from_end_to_end() {
        for values in [vec![1.0, 1000.0], vec![3.0, 4.0, 5.0]] {
            let scale = Scale::over(&values, 10.0, 110.0, false);
            assert_eq!(scale.at(values[0]), 10.0);
            assert!((scale.at(values[values.len() - 1]) - 110.0).abs() < 1e-9);
            assert!(scale.marks().windows(2).all(|pair| pair[0] < pair[1]));
        }
        assert!(Scale::over(&[1.0, 1000.0], 0.0, 1.0, true).logarithmic);
        assert_eq!(Scale::over(&[3.0, 4.0], 0.0, 1.0, true).at(0.0), 0.0);
    }
}
