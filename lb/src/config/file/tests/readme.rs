//! What the README shows must be true.

use crate::config::parse;

#[test]
fn the_configs_of_the_readme_are_valid() {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
    let examples: Vec<&str> = readme
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a fence that ends").0)
        .collect();
    assert!(examples.len() > 1);
    let first = examples[0];
    for example in &examples {
        // The first is a whole file; routes are for its listener, and other tables for any file.
        let text = match *example {
            example if example == first => first.to_owned(),
            routes if routes.contains("[route.") && !routes.contains("[listener.") => {
                format!("{first}{routes}")
            }
            table => format!("version = 1\n{table}"),
        };
        let loaded = parse("README.md", &text).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}

#[test]
fn the_configs_of_what_is_said_of_tls_and_http2_are_valid() {
    for said in [
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tls.md")),
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http2.md")),
    ] {
        let (_, rest) = said.split_once("```toml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let text = format!("version = 1\n{example}");
        let loaded = parse("example.md", &text).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}
