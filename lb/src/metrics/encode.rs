//! Prometheus text format, version 0.0.4.
//! Source: prometheus.io/docs/instrumenting/exposition_formats, "Text-based format".

use std::{
    collections::HashMap,
    fmt::{Display, Write},
    sync::Arc,
};

/// Content type of what [`Encoder::finish`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers do over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Writes one exposition. Families come out in the order they are begun; each may be begun once.
#[derive(Debug, Default)]
pub struct Encoder {
    text: String,
    counted: Arc<HashMap<String, u64>>,
}

impl Encoder {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What earlier processes have counted, by series as they are written: counters go on from there.
    pub fn counted(&mut self, counted: Arc<HashMap<String, u64>>) {
        self.counted = counted;
    }

    /// Begins a family: HELP and TYPE. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        debug_assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        let before = Some(&*self.counted).filter(|counted| kind == Kind::Counter && !counted.is_empty());
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help, Quoted::No);
        _ = write!(self.text, "\n# TYPE {name} {kind}\n");
        Family { text: &mut self.text, name, before }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// A begun family.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
    before: Option<&'a HashMap<String, u64>>,
}

impl Family<'_> {
    /// One line. Label values may hold anything; they are escaped.
    pub fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        let began = self.text.len();
        self.text.push_str(self.name);
        let mut scratch = String::new();
        for (index, (label, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            scratch.clear();
            _ = write!(scratch, "{value}");
            escape(self.text, &scratch, Quoted::Yes);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let before = self.before.and_then(|before| before.get(&self.text[began..]));
        let whole = before.and_then(|before| Some(before + value.to_string().parse::<u64>().ok()?));
        _ = match whole {
            Some(whole) => writeln!(self.text, " {whole}"),
            None => writeln!(self.text, " {value}"),
        };
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoted {
    Yes,
    No,
}

fn escape(into: &mut String, text: &str, quoted: Quoted) {
    for c in text.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '"' if quoted == Quoted::Yes => into.push_str("\\\""),
            c => into.push(c),
        }
    }
}

/// A strict reader of the format, for tests of whatever writes it.
#[cfg(test)]
pub(crate) mod checker {
    use std::collections::{BTreeMap, BTreeSet};

    /// Every sample by name and labels as written, in any order; panics where the text breaks a rule.
    pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
        assert!(text.is_empty() || text.ends_with('\n'), "ends without a newline");
        let (mut samples, mut families, mut current) = (BTreeMap::new(), BTreeSet::new(), String::new());
        let mut helped = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                helped = rest.split(' ').next().unwrap().to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, helped, "TYPE follows its HELP");
                assert!(matches!(kind, "counter" | "gauge"), "{line}");
                assert!(families.insert(name.to_owned()), "{name} is begun twice");
                name.clone_into(&mut current);
            } else {
                let (series, value) = split(line);
                let name = series.split('{').next().unwrap();
                assert_eq!(name, current, "sample outside its family: {line}");
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(samples.insert(series.to_owned(), value).is_none(), "{series} stands twice");
            }
        }
        samples
    }

    /// Name with labels, and value; checks the labels' syntax on the way.
    fn split(line: &str) -> (&str, &str) {
        let Some(open) = line.find('{') else { return line.split_once(' ').unwrap() };
        let mut rest = &line[open + 1..];
        loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            let mut escaped = false;
            let end = after
                .find(|c| {
                    let closes = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                })
                .expect(line);
            rest = &after[end + 1..];
            if let Some(value) = rest.strip_prefix("} ") {
                return (&line[..line.len() - value.len() - 1], value);
            }
            rest = rest.strip_prefix(',').expect(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_help_type_and_samples() {
        let mut encoder = Encoder::new();
        let mut family = encoder.family("lb_test_things_total", Kind::Counter, "Things seen.");
        family.sample(&[("worker", &3), ("reason", &"odd")], 17_u64);
        encoder.family("lb_test_up", Kind::Gauge, "Whether.").sample(&[], 1);
        assert_eq!(
            encoder.finish(),
            "# HELP lb_test_things_total Things seen.\n# TYPE lb_test_things_total counter\n\
             lb_test_things_total{worker=\"3\",reason=\"odd\"} 17\n\
             # HELP lb_test_up Whether.\n# TYPE lb_test_up gauge\nlb_test_up 1\n"
        );
    }

    #[test]
    fn counters_go_on_from_what_was_counted_before_and_gauges_do_not() {
        let mut encoder = Encoder::new();
        let before = [("lb_test_things_total{worker=\"3\"}", 40), ("lb_test_up", 9)];
        encoder.counted(Arc::new(before.map(|(series, count)| (series.to_owned(), count)).into()));
        let mut family = encoder.family("lb_test_things_total", Kind::Counter, "Things seen.");
        family.sample(&[("worker", &3)], 2_u64);
        family.sample(&[("worker", &4)], 5_u64);
        encoder.family("lb_test_up", Kind::Gauge, "Whether.").sample(&[], 1);
        let samples = checker::parse(&encoder.finish());
        assert_eq!(samples["lb_test_things_total{worker=\"3\"}"], 42.0);
        assert_eq!(samples["lb_test_things_total{worker=\"4\"}"], 5.0);
        assert_eq!(samples["lb_test_up"], 1.0);
    }

    proptest::proptest! {
        /// Whatever a label holds, the line stays one line and reads back.
        #[test]
        fn label_values_are_fenced(value in "\\PC*|[\"\\\\\n{},= ]*") {
            let mut encoder = Encoder::new();
            encoder.family("lb_test_up", Kind::Gauge, &value).sample(&[("pool", &value), ("backend", &"x")], 1);
            let samples = checker::parse(&encoder.finish());
            proptest::prop_assert_eq!(samples.len(), 1);
            let fenced = samples.into_keys().all(|series| series.ends_with(",backend=\"x\"}"));
            proptest::prop_assert!(fenced);
        }
    }
}
