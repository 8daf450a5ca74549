//! ARCHITECTURE.md's import table is true: no module uses one that its row does not name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What every module may use: the crate's root items and the modules beneath all others.
const BASE: [&str; 7] = ["error", "seed", "budget", "matrix", "fingerprint", "monitor", "write"];

#[test]
fn modules_import_only_what_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = table(&fs::read_to_string(root.join("../../ARCHITECTURE.md")).expect("ARCHITECTURE.md is there"));
    let mut wrong = Vec::new();
    for file in files(&root.join("src")) {
        let relative = file.strip_prefix(root.join("src")).expect("below src");
        let first = relative
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("source can be read");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let allowed = table
            .get(&module)
            .unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for `{module}`"));
        for used in imports(code) {
            let free = BASE.contains(&used.as_str()) || used == module || used.starts_with(char::is_uppercase);
            if !free && !allowed.contains(&used) && !allowed.contains("all of the above") {
                wrong.push(format!("{} uses {used}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "the table does not allow it: {wrong:#?}");
}

/// Module to what it may import, from the table's first and last columns.
fn table(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let names = |cell: &str| -> BTreeSet<String> {
        if cell.contains("all of the above") {
            return BTreeSet::from(["all of the above".to_owned()]);
        }
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let allowed = names(cells[cells.len() - 1]);
            names(cells[0]).into_iter().map(move |module| (module, allowed.clone()))
        })
        .collect()
}

/// The first path segments behind `crate::`, in single paths and in `crate::{...}` groups.
fn imports(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut segment = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 && c == ',' {
                    used.insert(first_word(&segment));
                    segment.clear();
                } else {
                    segment.push(c);
                }
            }
            used.insert(first_word(&segment));
        } else {
            used.insert(first_word(rest));
        }
    }
    used.remove("");
    used
}

fn first_word(text: &str) -> String {
    text.trim()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
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

#[test]
fn the_test_itself_sees_groups_and_single_paths() {
    let used = imports(
        "use crate::{Error, data::{Split, RowId}, pool::Pool};\nlet x = crate::metric::Metric;\n// crate::run\n",
    );
    assert_eq!(
        used.into_iter().collect::<Vec<_>>(),
        ["Error", "data", "metric", "pool"]
    );
}
