//! The order of the house: ARCHITECTURE.md's import table is true, and no file imports itself by way of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A file's module path, such as `["scorer", "ridge", "probe"]`.
type Module = Vec<String>;

#[test]
fn modules_import_only_what_the_table_allows() {
    let table = table(&fs::read_to_string(crates().join("../ARCHITECTURE.md")).expect("ARCHITECTURE.md is there"));
    let mut wrong = Vec::new();
    for (file, used) in imports_of_files(&crates().join("tamis/src")) {
        let Some(module) = file.first() else { continue };
        let allowed = table
            .get(module)
            .unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for `{module}`"));
        for other in used.iter().filter_map(|module| module.first()) {
            if other != module && other != "error" && !allowed.contains(other) {
                wrong.push(format!("{} uses {other}", file.join("/")));
            }
        }
    }
    assert!(wrong.is_empty(), "the table does not allow it: {wrong:#?}");
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    for crate_name in ["tamis-nn", "tamis", "tamis-cli", "tamis-python"] {
        let imports = imports_of_files(&crates().join(crate_name).join("src"));
        let circle = circle(&imports).map(|circle| circle.iter().map(|file| file.join("/")).collect::<Vec<_>>());
        assert_eq!(circle, None, "in {crate_name}, each imports the next");
    }
}

#[test]
fn the_test_itself_sees_groups_paths_and_circles() {
    let code = "use crate::{Error, data::{Split, RowId}, pool::Pool};\nlet x = crate::metric::Metric;\n// crate::run\n";
    let seen: Vec<String> = paths(code).iter().map(|path| path.join("::")).collect();
    for path in ["Error", "data::Split", "data::RowId", "pool::Pool", "metric::Metric"] {
        assert!(seen.contains(&path.to_owned()), "{path} is not in {seen:?}");
    }
    assert!(!seen.contains(&"run".to_owned()));

    let module = |name: &str| vec![name.to_owned()];
    let uses = |from: &str, to: &[&str]| (module(from), to.iter().map(|to| module(to)).collect());
    let line = BTreeMap::from([uses("a", &["b"]), uses("b", &["c"]), uses("c", &[])]);
    assert_eq!(circle(&line), None);
    let round = BTreeMap::from([uses("a", &["b"]), uses("b", &["c"]), uses("c", &["b"])]);
    assert_eq!(circle(&round), Some(vec![module("b"), module("c")]));
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Module to what it may import, from the table's first and last columns.
fn table(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let names = |cell: &str| -> BTreeSet<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let allowed = names(cells[cells.len() - 1]);
            names(cells[0]).into_iter().map(move |module| (module, allowed.clone()))
        })
        .collect()
}

/// Every file with the files of its crate that it imports. A name that a file only hands on counts for the file that it comes from.
fn imports_of_files(root: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let sources: BTreeMap<Module, String> = files(root)
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("source can be read");
            (
                module_of(path.strip_prefix(root).expect("below src")),
                without_tests(&text),
            )
        })
        .collect();
    let mut handed_on: BTreeMap<Module, Module> = BTreeMap::new();
    for (module, code) in &sources {
        for path in reexports(code, module, &sources) {
            let name = path[path.len() - 1].clone();
            let from = owner(&path, &sources, &BTreeMap::new());
            handed_on.insert([module.clone(), vec![name]].concat(), from);
        }
    }
    sources
        .iter()
        .map(|(module, code)| {
            let code = statements(code, false);
            let used = paths(&code)
                .iter()
                .map(|path| owner(path, &sources, &handed_on))
                .collect::<BTreeSet<_>>();
            (module.clone(), used.into_iter().filter(|used| used != module).collect())
        })
        .collect()
}

/// The code with its re-exports (`pub use`), or without them.
fn statements(code: &str, reexports: bool) -> String {
    let mut kept = String::new();
    for statement in code.split_inclusive(';') {
        let is_reexport = statement.lines().any(|line| {
            let line = line.trim_start();
            line.starts_with("pub use ") || line.starts_with("pub(crate) use ")
        });
        if is_reexport == reexports {
            kept += statement;
        }
    }
    kept
}

/// The paths that a file re-exports from files of its crate.
fn reexports(code: &str, module: &Module, sources: &BTreeMap<Module, String>) -> Vec<Module> {
    let mut found = Vec::new();
    for statement in statements(code, true).split(';') {
        let Some(at) = statement.find("use ") else { continue };
        for path in leaves(&statement[at + "use ".len()..]) {
            let child = [module.clone(), vec![path[0].clone()]].concat();
            if path[0] == "crate" {
                found.push(path[1..].to_vec());
            } else if sources.contains_key(&child) {
                found.push([module.clone(), path].concat());
            }
        }
    }
    found
}

/// The file that a path leads to: the longest part of it that is one, or that it is handed on from.
fn owner(path: &[String], sources: &BTreeMap<Module, String>, handed_on: &BTreeMap<Module, Module>) -> Module {
    (0..=path.len())
        .rev()
        .find_map(|length| {
            let part = path[..length].to_vec();
            handed_on
                .get(&part)
                .cloned()
                .or_else(|| sources.contains_key(&part).then_some(part))
        })
        .unwrap_or_default()
}

/// Every path behind `crate::`, in single paths and in `crate::{...}` groups.
fn paths(code: &str) -> Vec<Module> {
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    code.match_indices("crate::")
        .flat_map(|(at, start)| leaves(&code[at + start.len()..]))
        .collect()
}

/// The paths of a use tree, or the one path that stands at the beginning of the text.
fn leaves(text: &str) -> Vec<Module> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut from, mut found) = (0, 0, Vec::new());
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                '}' | ',' if depth == 0 => {
                    found.extend(leaves(&group[from..at]));
                    from = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return found;
    }
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if word.is_empty() {
        return Vec::new();
    }
    let Some(rest) = text[word.len()..].strip_prefix("::") else {
        return vec![vec![word]];
    };
    let below = leaves(rest);
    if below.is_empty() {
        return vec![vec![word]];
    }
    below
        .into_iter()
        .map(|path| [vec![word.clone()], path].concat())
        .collect()
}

/// The first circle that there is, each file importing the next and the last the first.
fn circle(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    fn visit(
        file: &Module,
        imports: &BTreeMap<Module, BTreeSet<Module>>,
        way: &mut Vec<Module>,
        done: &mut BTreeSet<Module>,
    ) -> Option<Vec<Module>> {
        if let Some(from) = way.iter().position(|there| there == file) {
            return Some(way[from..].to_vec());
        }
        if !done.insert(file.clone()) {
            return None;
        }
        way.push(file.clone());
        let found = imports
            .get(file)
            .into_iter()
            .flatten()
            .find_map(|used| visit(used, imports, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports
        .keys()
        .find_map(|file| visit(file, imports, &mut Vec::new(), &mut done))
}

/// A file's module path: `lib.rs` is the root, `a/mod.rs` is `a`.
fn module_of(path: &Path) -> Module {
    let mut parts: Module = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if parts
        .last()
        .is_some_and(|last| ["lib", "main", "mod"].contains(&last.as_str()))
    {
        parts.pop();
    }
    parts
}

fn without_tests(text: &str) -> String {
    let modules = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub(crate) mod tests"];
    let ends = modules.iter().filter_map(|tests| text.find(tests)).min();
    text[..ends.unwrap_or(text.len())].to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
