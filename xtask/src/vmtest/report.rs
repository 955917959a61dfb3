//! What a guest said on its console, judged: silence is a failure.

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::test::Total;

/// Begins every line that the guest's own script prints.
pub(crate) const MARK: &str = "vmtest:";

/// A guest that did all it was to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    total: Total,
    /// Suites, each with the hundredths of a second that it took.
    took: Vec<(String, u64)>,
}

/// Reads a console. Every suite has begun, ended with code 0, and passed at least one test.
///
/// # Errors
/// What did not, or that the guest never came to its end.
pub(crate) fn judge(console: &str, suites: &[&str]) -> Result<Summary> {
    let mut summary = Summary { total: Total::default(), took: Vec::new() };
    let mut begun = None;
    let mut ended = false;
    for line in console.lines().map(str::trim_end) {
        // A kernel's own message may stand in front of it.
        let Some(at) = line.find(MARK) else {
            summary.total.add(line);
            continue;
        };
        let words: Vec<&str> = line[at + MARK.len()..].split_whitespace().collect();
        match words[..] {
            ["begin", name, uptime] => begun = Some((name, hundredths(uptime)?, summary.total.passed)),
            ["end", name, code, uptime] => {
                let Some((of, since, passed)) = begun.take().filter(|(of, ..)| *of == name) else {
                    bail!("{name} ended without having begun");
                };
                if code != "0" {
                    bail!("{of} failed (exit code {code})");
                }
                if summary.total.passed == passed {
                    bail!("{of} ran no test");
                }
                summary.took.push((of.to_owned(), hundredths(uptime)?.saturating_sub(since)));
            }
            ["done"] => ended = true,
            _ => bail!("cannot read {line:?}"),
        }
    }
    if let Some((name, ..)) = begun {
        bail!("the guest stopped within {name}");
    }
    if let Some(missing) = suites.iter().find(|suite| !summary.took.iter().any(|(name, _)| name == *suite)) {
        bail!("{missing} did not run");
    }
    if !ended {
        bail!("the guest did not come to its end");
    }
    if summary.total.failed > 0 {
        bail!("{}", summary.total);
    }
    Ok(summary)
}

/// As /proc/uptime writes it.
fn hundredths(uptime: &str) -> Result<u64> {
    let digits: String = uptime.chars().filter(|character| *character != '.').collect();
    digits.parse().with_context(|| format!("not a time: {uptime:?}"))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total)?;
        for (name, took) in &self.took {
            write!(f, ", {name} {}.{:02} s", took / 100, took % 100)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\r\n";

    fn console(parts: &[&str]) -> String {
        parts.concat()
    }

    #[test]
    fn a_whole_run_passes_and_is_added_up() {
        let text = console(&[
            "[    1.2] a kernel's own line\r\n",
            "vmtest: begin rows 2.50\r\n",
            RESULT,
            "vmtest: end rows 0 4.00\r\n",
            "[    9.1] cut vmtest: begin wire 4.00\r\n",
            RESULT,
            "vmtest: end wire 0 5.25\r\nvmtest: done\r\n",
        ]);
        let summary = judge(&text, &["rows", "wire"]).unwrap();
        assert_eq!(
            summary.to_string(),
            "6 passed, 0 failed, 0 ignored in 2 test programs, rows 1.50 s, wire 1.25 s"
        );
    }

    #[test]
    fn whatever_is_missing_is_a_failure_that_names_it() {
        let begin = "vmtest: begin rows 2.50\r\n";
        let end = "vmtest: end rows 0 4.00\r\n";
        let done = "vmtest: done\r\n";
        let failed = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\r\n";
        for (parts, says) in [
            (&[][..], "rows did not run"),
            (&[begin, RESULT], "stopped within rows"),
            (&[begin, RESULT, end], "did not come to its end"),
            (&[begin, end, done], "ran no test"),
            (&[end, done], "without having begun"),
            (&[begin, failed, end, done], "2 failed"),
            (&[begin, RESULT, "vmtest: end rows 101 4.00\r\n", done], "exit code 101"),
            (&[begin, RESULT, "vmtest: insmod failed\r\n", end, done], "insmod failed"),
        ] {
            let error = judge(&console(parts), &["rows"]).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
