//! What the README shows must be true.

use crate::config::parse;

#[test]
fn the_first_config_of_the_readme_is_valid() {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
    let examples: Vec<&str> = readme
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a fence that ends").0)
        .collect();
    assert_eq!(examples.len(), 1);
    let loaded = parse("README.md", examples[0]).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}
