//! Checks the list of mutants that no test can notice.

use std::fs;
use std::path::Path;

/// The path in an entry, and the function that the entry names: the last word of "… in <function>",
/// or of "replace <function> -> <type> with …".
fn named(entry: &str) -> Option<(String, &str)> {
    let (path, rest) = entry.split_once(r"\.rs:")?;
    let (function, _) = rest.split_once(" -> ").unwrap_or((rest, ""));
    let name = function
        .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
        .find(|name| !name.is_empty())?;
    Some((format!("{path}.rs"), name))
}

#[test]
fn each_excluded_mutant_exists_and_has_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(root.join(".cargo/mutants.toml")).unwrap();
    let (_, list) = list.split_once("exclude_re = [").unwrap();
    let (mut entries, mut reason) = (0, false);
    for line in list.lines().map(str::trim) {
        match line.strip_prefix('\'') {
            Some(entry) => {
                let entry = entry.trim_end_matches("',");
                let (path, function) = named(entry).unwrap_or_else(|| panic!("no path: {entry}"));
                let source = fs::read_to_string(root.join(&path)).unwrap_or_default();
                assert!(source.contains(&format!("fn {function}")), "no such function: {entry}");
                assert!(reason, "no comment with a reason above: {entry}");
                entries += 1;
            }
            None if line.is_empty() => reason = false,
            None => reason = line.starts_with('#'),
        }
    }
    assert!(entries > 0);
}
