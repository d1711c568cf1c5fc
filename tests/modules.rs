//! Checks that the modules of the library import one another in one direction only.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "all of this is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The path of a module below the crate's root.
type Module = Vec<String>;
/// A path as written, split into its parts; or the tokens of a path.
type Segments = Vec<String>;

/// The one cycle that is allowed: a refused id is an error, and an error names ids.
const EXCUSED: [&str; 2] = ["error", "types"];

/// The references of one source file to other modules.
#[derive(Default)]
struct Source {
    paths: Vec<Segments>,
    /// The paths that the file re-exports, by their names.
    exports: BTreeMap<String, Segments>,
}

#[test]
fn no_modules_import_each_other_in_a_cycle() {
    let mut sources = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Module::new(), &mut sources);
    let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, source) in &sources {
        let found = source.paths.iter().filter_map(|path| resolve(module, path, &sources, 0));
        imports.insert(module.clone(), found.filter(|found| found != module).collect());
    }
    assert!(
        imports[&modules("jetstream::room::rekey")].contains(&modules("jetstream::stored::codec"))
    );
    assert!(imports[&modules("sqlite")].contains(&modules("gate")));
    // The check is made for single files, and for folders as a whole.
    let depth = imports.keys().map(Vec::len).max().unwrap_or(0);
    for depth in 1..=depth {
        let folded = |module: &Module| module[..depth.min(module.len())].to_vec();
        let mut graph: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, others) in &imports {
            let others = others.iter().map(folded).filter(|other| *other != folded(module));
            graph.entry(folded(module)).or_default().extend(others);
        }
        for cycle in cycles(&graph) {
            let excused = cycle.iter().all(|module| EXCUSED.contains(&module[0].as_str()));
            assert!(excused, "these import each other: {}", shown(&cycle));
        }
    }
}

fn modules(path: &str) -> Module {
    path.split("::").map(str::to_owned).collect()
}

fn shown(modules: &BTreeSet<Module>) -> String {
    modules.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(", ")
}

/// Parses all files of a folder.
fn read(folder: &Path, module: &Module, sources: &mut BTreeMap<Module, Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let inner: Module = module.iter().cloned().chain([name.clone()]).collect();
        if path.is_dir() {
            read(&path, &inner, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inner = if name == "lib" { Module::new() } else { inner };
            sources.insert(inner, Source::parse(&fs::read_to_string(&path).unwrap()));
        }
    }
}

impl Source {
    fn parse(text: &str) -> Self {
        // Imports of unit tests are not checked.
        let code = text.rfind("#[cfg(test)]").filter(|at| text[*at..].contains("mod tests"));
        let tokens = tokens(&text[..code.unwrap_or(text.len())]);
        let mut source = Self::default();
        let mut at = 0;
        let mut public = false;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.as_str() {
                "pub" => {
                    public = true;
                    // `pub(super)` and `pub(in …)` are visibilities, not imports.
                    if tokens.get(at).is_some_and(|next| next == "(") {
                        at += tokens[at..].iter().position(|next| next == ")").unwrap() + 1;
                    }
                    continue;
                }
                "use" => {
                    let end = at + tokens[at..].iter().position(|next| next == ";").unwrap();
                    for path in expanded(&tokens[at..end]) {
                        if public {
                            source.exports.insert(path.last().unwrap().clone(), path.clone());
                        }
                        source.paths.push(path);
                    }
                    at = end;
                }
                word if is_word(word) => {
                    let mut path = vec![word.to_owned()];
                    while tokens.get(at).is_some_and(|next| next == "::")
                        && let Some(next) = tokens.get(at + 1).filter(|next| is_word(next))
                    {
                        path.push(next.clone());
                        at += 2;
                    }
                    if path.len() > 1 {
                        source.paths.push(path);
                    }
                }
                _ => {}
            }
            public = false;
        }
        source
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The tokens of a source text, without comments and string literals.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_char = rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").unwrap() + 2
        } else if first == '"' || (first == '\'' && is_char) {
            quoted(rest)
        } else if is_word(rest) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            tokens.extend((!first.is_whitespace()).then(|| first.to_string()));
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    tokens
}

/// The length of a string or character literal.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if !escaped && text.starts_with(c) {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Expands a `use` into full paths.
fn expanded(tree: &[String]) -> Vec<Segments> {
    let mut paths = Vec::new();
    let mut prefix = Segments::new();
    let mut rest = tree;
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        match token.as_str() {
            "{" => {
                let (mut depth, mut part) = (0_usize, Vec::new());
                for token in rest {
                    match token.as_str() {
                        "," | "}" if depth == 0 => {
                            let inner = expanded(&part).into_iter();
                            paths.extend(inner.map(|path| [prefix.clone(), path].concat()));
                            part.clear();
                            continue;
                        }
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    part.push(token.clone());
                }
                return paths;
            }
            "as" => break,
            "::" => {}
            word => prefix.push(word.to_owned()),
        }
    }
    if !prefix.is_empty() {
        paths.push(prefix);
    }
    paths
}

/// The module in which a path ends, following re-exports.
fn resolve(
    from: &Module,
    path: &[String],
    sources: &BTreeMap<Module, Source>,
    depth: usize,
) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    let mut absolute = match first.as_str() {
        "crate" => Module::new(),
        "self" => from.clone(),
        "super" => from[..from.len().checked_sub(1)?].to_vec(),
        child => {
            let inner: Module = from.iter().cloned().chain([child.to_owned()]).collect();
            sources.contains_key(&inner).then_some(inner)?
        }
    };
    let mut rest = rest;
    while let Some((next, after)) = rest.split_first() {
        if next == "super" {
            absolute.pop()?;
        } else {
            let inner: Module = absolute.iter().cloned().chain([next.clone()]).collect();
            if !sources.contains_key(&inner) {
                break;
            }
            absolute = inner;
        }
        rest = after;
    }
    let again = rest.first().and_then(|name| sources.get(&absolute)?.exports.get(name));
    let again = again.filter(|_| depth < 8);
    again.and_then(|path| resolve(&absolute, path, sources, depth + 1)).or(Some(absolute))
}

/// The groups of modules that import one another, directly or through other modules.
fn cycles(graph: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<BTreeSet<Module>> {
    let reached = |from: &Module| {
        let mut reached = BTreeSet::new();
        let mut left: Vec<&Module> = graph[from].iter().collect();
        while let Some(module) = left.pop() {
            if reached.insert(module.clone()) {
                left.extend(&graph[module]);
            }
        }
        reached
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        graph.keys().map(|module| (module, reached(module))).collect();
    let cycle = |module: &&Module| -> BTreeSet<Module> {
        let back = |other: &&Module| reached[other].contains(*module);
        reached[*module].iter().filter(back).cloned().collect()
    };
    graph.keys().map(|module| cycle(&module)).filter(|cycle| !cycle.is_empty()).collect()
}
