//! What is measured: metrics, the values of one round, and all rounds of a scenario.

use std::collections::BTreeMap;

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// Costs: time, memory, calls.
    Less,
    /// Yields: requests or bytes per second.
    More,
    /// Circumstances, beside which the others are read.
    Neither,
}

/// One thing that is measured. Scenarios keep theirs as constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    /// As in the report: lower case, `_` between words, the unit left out.
    pub(crate) name: &'static str,
    /// Unit of the values.
    pub(crate) unit: &'static str,
    /// Which way is better.
    pub(crate) better: Better,
    /// What it is measured over, with its unit (`connections`, `body_bytes`, `percentile`); such a metric is
    /// drawn as a curve, one without as bars.
    pub(crate) axis: Option<&'static str>,
}

impl Metric {
    /// A cost.
    pub(crate) const fn cost(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, better: Better::Less, axis: None }
    }

    /// A yield.
    pub(crate) const fn gain(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, better: Better::More, axis: None }
    }

    /// A circumstance: shown, never compared.
    pub(crate) const fn fact(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, better: Better::Neither, axis: None }
    }

    /// The same, measured over an axis.
    pub(crate) const fn over(self, axis: &'static str) -> Self {
        Self { axis: Some(axis), ..self }
    }
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) metric: Metric,
    /// Place on the metric's axis; zero where it has none.
    pub(crate) at: f64,
    pub(crate) value: f64,
}

/// What one subject gave in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<Value>);

impl Sample {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds the value of a metric without an axis.
    pub(crate) fn with(mut self, metric: Metric, value: f64) -> Self {
        self.0.push(Value { metric, at: 0.0, value });
        self
    }

    /// Adds the value of a metric at a place of its axis.
    pub(crate) fn with_at(mut self, metric: Metric, at: f64, value: f64) -> Self {
        self.0.push(Value { metric, at, value });
        self
    }

    /// The value of a metric at a place of its axis.
    #[cfg(test)]
    pub(crate) fn get(&self, metric: Metric, at: f64) -> Option<f64> {
        self.0.iter().find(|value| value.metric == metric && value.at == at).map(|value| value.value)
    }

    /// Adds another's values.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl std::fmt::Display for Sample {
    /// The first few, as they are shown while it runs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 4;
        for (index, Value { metric, value, .. }) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {value:.2} {}", metric.name, metric.unit)?;
        }
        Ok(())
    }
}

/// One subject's values of one metric, at one place of its axis, over the rounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) subject: String,
    pub(crate) metric: Metric,
    pub(crate) at: f64,
    /// By round, counted from 0; a void round is absent.
    pub(crate) rounds: BTreeMap<usize, f64>,
}

/// Everything that a scenario found, in order of first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    pub(crate) series: Vec<Series>,
    /// What a reader has to know, such as a peer that is missing or a round that is void.
    pub(crate) notes: Vec<String>,
    /// Samples that were left out as void, after a second attempt.
    pub(crate) void: usize,
    /// Subjects whose ratio (first over second) is asked for besides those of `lb` over each other subject.
    pub(crate) pairs: Vec<(String, String)>,
}

impl Samples {
    /// Takes a round's values of a subject.
    pub(crate) fn record(&mut self, round: usize, subject: &str, sample: Sample) {
        for Value { metric, at, value } in sample.0 {
            self.series_of(subject, metric, at).rounds.insert(round, value);
        }
    }

    /// Adds a note, once.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Whether any sample had to be left out.
    pub(crate) fn has_void(&self) -> bool {
        self.void > 0
    }

    /// Asks for the ratio of one subject over another.
    pub(crate) fn compare(&mut self, subject: &str, versus: &str) {
        self.pairs.push((subject.to_owned(), versus.to_owned()));
    }

    fn series_of(&mut self, subject: &str, metric: Metric, at: f64) -> &mut Series {
        let same = |series: &Series| series.subject == subject && series.metric == metric && series.at == at;
        let index = self.series.iter().position(same).unwrap_or_else(|| {
            let rounds = BTreeMap::new();
            self.series.push(Series { subject: subject.to_owned(), metric, at, rounds });
            self.series.len() - 1
        });
        &mut self.series[index]
    }
}

/// Median, minimum and maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these values; of none: `None`. The median of an even number is the mean of the middle two.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { median, min, max })
    }

    /// Of the ratios of two series, pair by pair: only rounds that both have.
    pub(crate) fn of_ratios(subject: &Series, versus: &Series) -> Option<Self> {
        let pairs =
            subject.rounds.iter().filter_map(|(round, &ours)| Some((ours, *versus.rounds.get(round)?)));
        Self::of(pairs.filter(|&(_, theirs)| theirs != 0.0).map(|(ours, theirs)| ours / theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Metric = Metric::cost("cpu", "us/request");

    #[test]
    fn spread_is_of_the_sorted_values() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut samples = Samples::default();
        for (round, lb, other) in [(0, 1.0, 2.0), (1, 10.0, 20.0), (3, 3.0, 4.0)] {
            samples.record(round, "lb", Sample::new().with(CPU, lb));
            samples.record(round, "other", Sample::new().with(CPU, other));
        }
        samples.record(2, "lb", Sample::new().with(CPU, 1000.0));
        let [lb, other] = &samples.series[..] else { panic!("{samples:?}") };
        assert_eq!(Spread::of_ratios(lb, other), Some(Spread { median: 0.5, min: 0.5, max: 0.75 }));
    }

    #[test]
    fn places_on_an_axis_are_series_of_their_own() {
        let mut samples = Samples::default();
        let metric = CPU.over("connections");
        samples.record(0, "lb", Sample::new().with_at(metric, 64.0, 1.0).with_at(metric, 512.0, 2.0));
        samples.record(1, "lb", Sample::new().with_at(metric, 64.0, 3.0));
        let found: Vec<_> = samples.series.iter().map(|series| (series.at, series.rounds.len())).collect();
        assert_eq!(found, [(64.0, 2), (512.0, 1)]);
    }
}
