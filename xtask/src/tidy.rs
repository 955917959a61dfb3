//! `tidy`: what the compiler and clippy do not know of our house rules. All findings at once, `file:line: rule`.

mod check;
mod lex;
mod paths;
mod rules;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use check::Finding;

/// Checks every text file of the tree.
pub(crate) fn verb(workspace: &Workspace) -> Result<ExitCode> {
    let (files, found) = tree(&workspace.root)?;
    for Finding { path, line, rule } in &found {
        match line {
            0 => println!("{path}: {rule}"),
            line => println!("{path}:{line}: {rule}"),
        }
    }
    println!("tidy: {files} files, {} findings", found.len());
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Number of files read, and all findings below `root`.
fn tree(root: &Path) -> Result<(usize, Vec<Finding>)> {
    let mut found = Vec::new();
    let mut files = Vec::new();
    for (name, path) in entries(root)? {
        if !name.starts_with('.') && !rules::TOP_LEVEL.contains(&name.as_str()) {
            found.push(Finding {
                path: name.clone(),
                line: 0,
                rule: "does not belong at the top level".to_owned(),
            });
        }
        if name != "target" && name != ".git" {
            collect(path, &mut files)?;
        }
    }
    for path in &files {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        // What is no UTF-8 is no text: certificates in DER, captures.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let name = path.strip_prefix(root)?.to_string_lossy();
        found.extend(check::file(&name, &text));
    }
    found.sort();
    Ok((files.len(), found))
}

fn collect(path: PathBuf, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_symlink() {
        return Ok(());
    }
    if path.is_file() {
        files.push(path);
    } else if path.is_dir() {
        for (name, path) in entries(&path)? {
            if name != "target" {
                collect(path, files)?;
            }
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let context = || format!("list {}", directory.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_searched_whole_and_its_top_level_listed() {
        let root = std::env::temp_dir().join(format!("xtask-{}-tidy", std::process::id()));
        for (path, text) in [
            ("Cargo.toml", ""),
            ("notes.txt", ""),
            (".ci/run", "a\n"),
            ("lb/src/relay/mod.rs", "use crate::l7::A;\n"),
            ("target/debug/x.rs", "use crate::l7::A; todo!();\n"),
            ("lb/src/sys/a/b/mod.rs", "\nfn f() { dbg!() }\n"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (files, found) = tree(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let places: Vec<_> = found.iter().map(|finding| (finding.path.as_str(), finding.line)).collect();
        assert_eq!(places, [("lb/src/relay/mod.rs", 1), ("lb/src/sys/a/b/mod.rs", 2), ("notes.txt", 0)]);
        assert_eq!(files, 5);
    }

    #[test]
    fn this_tree_is_tidy_in_its_own_xtask() {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (files, found) = tree(xtask.parent().unwrap()).unwrap();
        let own: Vec<_> = found.iter().filter(|finding| finding.path.starts_with("xtask/")).collect();
        assert_eq!(own, [] as [&Finding; 0]);
        assert!(files > 10);
    }
}
