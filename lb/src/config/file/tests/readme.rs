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
    let [first, routes] = examples[..] else { panic!("{} examples", examples.len()) };
    // The routes are for the first config.
    for text in [first.to_owned(), format!("{first}{routes}")] {
        let loaded = parse("README.md", &text).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}
