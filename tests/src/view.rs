//! What the daemon shows: `lb show` rows and metrics, read in one place so that a renamed field hurts once.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One object of a `lb show ... --json` list.
#[derive(Clone, Debug)]
pub struct Row(Value);

/// A list of [`Row`]s.
#[derive(Clone, Debug)]
pub struct Table(Vec<Row>);

impl Table {
    /// Reads a JSON list of objects, or an object that has one under any key.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))?;
        let list = match value {
            Value::Array(list) => Some(list),
            Value::Object(map) => map.into_iter().find_map(|(_, v)| match v {
                Value::Array(list) => Some(list),
                _ => None,
            }),
            _ => None,
        };
        Ok(Self(list.with_context(|| format!("no list: {text}"))?.into_iter().map(Row).collect()))
    }

    /// Rows in the order shown.
    pub fn rows(&self) -> &[Row] {
        &self.0
    }

    /// Rows whose field `key` is `value`.
    pub fn matching(&self, key: &str, value: &str) -> Vec<&Row> {
        self.0.iter().filter(|row| row.text(key) == value).collect()
    }

    /// Sum of a number over all rows; a row without it counts nothing.
    pub fn sum(&self, key: &str) -> u64 {
        self.0.iter().map(|row| row.number(key)).sum()
    }
}

impl Row {
    /// A field as text, numbers and booleans too; empty: not there.
    pub fn text(&self, key: &str) -> String {
        match self.field(key) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// A count; 0: not there.
    pub fn number(&self, key: &str) -> u64 {
        self.field(key).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Whether a backend is up, in either spelling (`up: true`, `state: "up"`).
    pub fn is_up(&self) -> bool {
        self.field("up").and_then(Value::as_bool).unwrap_or_else(|| self.text("state") == "up")
    }

    fn field(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }
}

/// A scrape in Prometheus text.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Takes the text of `/metrics`.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Sum over all samples of metrics whose name contains `name` and whose labels contain all of `labels`
    /// (each as `key="value"`). `None`: there is no such sample.
    pub fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let values: Vec<f64> = self
            .samples()
            .filter(|(series, _)| {
                let (metric, rest) = series.split_once('{').unwrap_or((series, ""));
                metric.contains(name) && labels.iter().all(|label| rest.contains(label))
            })
            .map(|(_, value)| value)
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    fn samples(&self) -> impl Iterator<Item = (&str, f64)> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit_once(' ')).filter_map(|(s, v)| Some((s, v.parse().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_read_lists_and_wrapped_lists() {
        for text in [r#"[{"a":1,"up":true},{"a":2}]"#, r#"{"n":0,"rows":[{"a":1,"state":"up"},{"a":2}]}"#] {
            let table = Table::parse(text).unwrap();
            assert_eq!(table.sum("a"), 3);
            assert!(table.rows()[0].is_up());
            assert!(!table.rows()[1].is_up());
            assert_eq!(table.matching("a", "2").len(), 1);
        }
        assert!(Table::parse("{}").is_err());
    }

    #[test]
    fn metrics_sum_by_name_and_label() {
        let text = "# HELP x\nlb_x_total{w=\"0\",vip=\"a\"} 3\nlb_x_total{w=\"1\",vip=\"a\"} 4\nlb_y 1\n";
        let metrics = Metrics::new(text.to_owned());
        assert_eq!(metrics.sum("x_total", &["vip=\"a\""]), Some(7.0));
        assert_eq!(metrics.sum("x_total", &["w=\"1\"", "vip=\"a\""]), Some(4.0));
        assert_eq!(metrics.sum("z", &[]), None);
    }
}
