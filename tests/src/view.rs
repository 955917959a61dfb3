//! What the daemon shows: `lb show` rows and metrics, read in one place so that a renamed field hurts once.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// One object of a `lb show ... --json` list.
#[derive(Clone, Debug)]
pub struct Row(Value);

/// A list of [`Row`]s.
#[derive(Clone, Debug)]
pub struct Table(Vec<Row>);

impl Table {
    /// Reads the document `{ "workers": [row, ...] }` of `lb show workers --json`.
    ///
    /// # Errors
    /// It is not JSON, or has no list of that name.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        let mut value: Value = serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))?;
        match value.get_mut(what).map(Value::take) {
            Some(Value::Array(rows)) => Ok(Self(rows.into_iter().map(Row).collect())),
            _ => bail!("no list {what:?}: {text}"),
        }
    }

    /// Rows in the order shown.
    pub fn rows(&self) -> &[Row] {
        &self.0
    }

    /// The only row whose field `key` is `value`.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn row(&self, key: &str, value: &str) -> Result<&Row> {
        match self.matching(key, value)[..] {
            [row] => Ok(row),
            ref rows => bail!("{} rows with {key} = {value:?} in {self:?}", rows.len()),
        }
    }

    /// Rows whose field `key` is `value`.
    pub fn matching(&self, key: &str, value: &str) -> Vec<&Row> {
        self.0.iter().filter(|row| row.text(key).is_ok_and(|text| text == value)).collect()
    }

    /// Sum of a number over all rows.
    ///
    /// # Errors
    /// A row lacks it: a renamed counter must not read as zero.
    pub fn sum(&self, key: &str) -> Result<u64> {
        self.0.iter().map(|row| row.number(key)).sum()
    }
}

impl Row {
    /// A text.
    ///
    /// # Errors
    /// It is not there, or is no text.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.field(key).and_then(Value::as_str).with_context(|| format!("no text {key:?} in {}", self.0))
    }

    /// A count.
    ///
    /// # Errors
    /// It is not there, or is no count.
    pub fn number(&self, key: &str) -> Result<u64> {
        self.field(key).and_then(Value::as_u64).with_context(|| format!("no count {key:?} in {}", self.0))
    }

    /// All of it.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Whether a backend takes new work.
    ///
    /// # Errors
    /// The row says neither up nor down.
    pub fn is_up(&self) -> Result<bool> {
        match self.text("state")? {
            "up" => Ok(true),
            "down" | "ejected" => Ok(false),
            other => bail!("state {other:?}"),
        }
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
    fn a_missing_field_is_no_zero() {
        let table = Table::parse("x", r#"{"x":[{"a":1,"n":"p","state":"up"},{"a":2,"b":5,"state":"down"}]}"#);
        let table = table.unwrap();
        assert_eq!(table.sum("a").unwrap(), 3);
        assert!(table.sum("b").is_err());
        assert!(table.row("n", "p").unwrap().is_up().unwrap());
        assert!(!table.rows()[1].is_up().unwrap());
        assert!(table.row("n", "q").is_err());
        assert!(Table::parse("y", r#"{"x":[]}"#).is_err());
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
