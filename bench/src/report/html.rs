//! One page that needs nothing else.

use std::fmt::Write as _;

use super::{Found, Report, escape::escape, markdown::markdown, plot, wiring};
use crate::sample::Better;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1f24}\
h1,h2{line-height:1.2}h2{margin-top:3rem}svg{max-width:100%;height:auto;display:block;margin:1rem 0}\
pre{overflow-x:auto;background:#f5f6f8;padding:1rem;font-size:12px}li{margin:.2rem 0}.failed{color:#b3261e}";

/// The report as HTML: plots per scenario, its notes, and the tables at the end.
pub(super) fn html(report: &Report) -> String {
    let mut body = String::new();
    // Writing to a String does not fail.
    let _ = write_body(&mut body, report);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>lb beside its peers</title>\
         <style>{STYLE}</style></head><body>\n{body}</body></html>\n"
    )
}

fn write_body(body: &mut String, report: &Report) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(body, "<h1>lb beside its peers</h1>")?;
    writeln!(
        body,
        "<p>{}, {} cores; Linux {}, {}; commit {}; congestion control {}; XDP: {}. \
         Bars are medians, whiskers minimum and \
         maximum of the rounds. How it was measured: <code>bench/README.md</code>.</p>",
        escape(&machine.cpu),
        machine.cores,
        escape(&machine.kernel),
        escape(&machine.distribution),
        escape(&machine.commit),
        machine.congestion_control,
        machine.xdp_mode,
    )?;
    for found in &report.found {
        scenario(body, found)?;
    }
    writeln!(body, "<h2>Tables</h2>\n<pre>{}</pre>", escape(&markdown(report)))
}

fn scenario(body: &mut String, found: &Found) -> std::fmt::Result {
    writeln!(body, "<h2 id=\"{0}\">{0}</h2>", found.scenario)?;
    writeln!(body, "<p>{} ({}).</p>", escape(found.description), wiring(found.wiring))?;
    if let Some(failure) = &found.failure {
        writeln!(body, "<p class=\"failed\">Failed: {}</p>", escape(failure))?;
    }
    for metric in found.metrics().into_iter().filter(|metric| metric.better != Better::Neither) {
        let svg = match metric.axis {
            None => plot::bars(found, metric),
            Some(axis) => plot::curves(found, metric, axis),
        };
        writeln!(body, "{svg}")?;
    }
    if !found.samples.notes.is_empty() {
        writeln!(body, "<ul>")?;
        for note in &found.samples.notes {
            writeln!(body, "<li>{}</li>", escape(note))?;
        }
        writeln!(body, "</ul>")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_escapes() {
        let text = html(&super::super::tests::report());
        assert!(text.contains("small &lt;requests&gt;"));
        assert_eq!(text.matches("<svg").count(), 2);
        assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
        // Nothing is fetched; the namespace of SVG is a name.
        assert!(!text.replace("http://www.w3.org/2000/svg", "").contains("http://"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf\""));
    }
}
