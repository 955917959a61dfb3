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
    for (at, example) in examples.iter().enumerate() {
        // The first is a whole file, others are a table of one.
        let version = if at == 0 { "" } else { "version = 1\n" };
        let loaded = parse("README.md", &format!("{version}{example}")).unwrap();
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}
