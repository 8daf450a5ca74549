//! `docs/reference/settings.md`, made from the settings themselves: serde knows their names and what they may be, clap their flags, the
//! library their defaults, and the comments beside their fields what they mean.

use std::{collections::BTreeMap, fs, path::Path};

use clap::Command;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tamis::{
    commands::{CheckAgentSettings, CheckClustersSettings, CheckProxySettings},
    settings::{FinetuneSettings, SelectSettings, StudySettings},
};

use crate::{cli, keys};

/// The page, seen from the crate.
const PAGE: &str = "../../docs/reference/settings.md";
/// Stands where no name and no value is.
const NONE: &str = "?";
const INTRO: &str = "\
# Settings

Every setting is a flag of the command line, a key of the settings file that `--config` names, or
both. Flags win over the file. `tamis <command> --help` shows the flags that most users need,
`--help-all` all of them.

The settings file is TOML. A key such as `data.max_bad` may be written so, or as `max_bad` in the
table `[data]`.

This page is generated from the program; a test keeps it complete.
";

/// A field of a struct in the library's source.
struct Field {
    kind: String,
    comment: String,
}

/// The settings of a subcommand, and where its page's rows come from.
struct Source<'a> {
    command: &'a Command,
    subcommand: &'a str,
    /// The settings' struct.
    kind: &'a str,
    defaults: Value,
    structs: &'a BTreeMap<String, BTreeMap<String, Field>>,
}

/// What serde says against a value of the setting of this name.
fn refused(subcommand: &str, key: &str, value: Value) -> Option<String> {
    fn read<T: DeserializeOwned>(value: Value) -> Option<String> {
        serde_json::from_value::<T>(value).err().map(|error| error.to_string())
    }
    let whole = key
        .rsplit('.')
        .filter(|name| !name.is_empty())
        .fold(value, |value, name| json!({ name: value }));
    match subcommand {
        "select" => read::<SelectSettings>(whole),
        "finetune" => read::<FinetuneSettings>(whole),
        "study" => read::<StudySettings>(whole),
        "check clusters" => read::<CheckClustersSettings>(whole),
        "check proxy" => read::<CheckProxySettings>(whole),
        _ => read::<CheckAgentSettings>(whole),
    }
}

/// The settings in a table, by their full names; none where the setting is no table.
fn within(subcommand: &str, table: &str) -> Option<Vec<String>> {
    let said = refused(subcommand, table, json!({ NONE: 0 }))?;
    let known = said.strip_prefix("unknown field `?`, expected ")?;
    let names = known.split('`').skip(1).step_by(2);
    Some(names.map(|name| join(table, name)).collect())
}

fn join(table: &str, name: &str) -> String {
    let dot = if table.is_empty() { "" } else { "." };
    format!("{table}{dot}{name}")
}

/// What a setting may be, in words.
fn values(subcommand: &str, key: &str) -> String {
    let Some(said) = refused(subcommand, key, json!(NONE)) else {
        return "text".into();
    };
    if said.contains("expected a sequence") {
        let one = refused(subcommand, key, json!([NONE]));
        return format!("list of {}", one.map_or_else(|| "text".into(), |said| expected(&said)));
    }
    expected(&said)
}

/// What stands in an error as expected.
fn expected(said: &str) -> String {
    let wanted = said.rsplit_once("expected ").map_or(said, |(_, wanted)| wanted);
    let wanted = wanted.split(", found ").next().unwrap_or(wanted);
    match wanted.trim_start_matches("one of ") {
        "u32" | "u64" | "usize" => "whole number".into(),
        "f32" | "f64" => "number".into(),
        "a boolean" => "true or false".into(),
        "a map" => "table of text".into(),
        wanted => wanted.to_owned(),
    }
}

/// The public structs of the library's and the engine's source with their public fields.
fn structs() -> BTreeMap<String, BTreeMap<String, Field>> {
    let mut structs = BTreeMap::new();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![here.join("../tamis/src"), here.join("../tamis-nn/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the source") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read_structs(&fs::read_to_string(path).expect("source"), &mut structs);
            }
        }
    }
    structs
}

fn read_structs(source: &str, structs: &mut BTreeMap<String, BTreeMap<String, Field>>) {
    let mut fields: Option<&mut BTreeMap<String, Field>> = None;
    let mut comment: Vec<&str> = Vec::new();
    for line in source.lines() {
        let code = line.trim();
        if let Some(name) = line
            .strip_prefix("pub struct ")
            .and_then(|rest| rest.strip_suffix(" {"))
        {
            fields = Some(structs.entry(name.to_owned()).or_default());
        } else if line == "}" {
            fields = None;
        } else if let Some(text) = code.strip_prefix("///") {
            comment.push(text.trim());
            continue;
        } else if let (Some(fields), Some((name, kind))) = (
            &mut fields,
            code.strip_prefix("pub ").and_then(|field| field.split_once(": ")),
        ) {
            let kind = kind.trim_end_matches(',').to_owned();
            let comment = comment.join(" ");
            fields.insert(name.to_owned(), Field { kind, comment });
        }
        if !code.starts_with('#') {
            comment.clear();
        }
    }
}

impl Source<'_> {
    /// The field of a setting.
    fn field(&self, key: &str) -> &Field {
        let mut kind = self.kind;
        let mut field = None;
        for name in key.split('.') {
            let found = self.structs.get(kind).and_then(|fields| fields.get(name));
            let found =
                found.unwrap_or_else(|| panic!("no field `{name}` of {kind} in the source, for the setting {key}"));
            kind = found.kind.trim_start_matches("Option<").trim_end_matches('>');
            field = Some(found);
        }
        field.expect("a name has a part")
    }

    /// The rows of a table's settings, the tables within it after its own.
    fn rows(&self, table: &str, page: &mut String) {
        let mut tables = Vec::new();
        for key in within(self.subcommand, table).expect("a table") {
            if within(self.subcommand, &key).is_some() {
                tables.push(key);
            } else {
                *page += &self.row(&key);
            }
        }
        for table in tables {
            // They stand on the page once, with `tamis select`.
            if table != "select" {
                self.rows(&table, page);
            }
        }
    }

    fn row(&self, key: &str) -> String {
        let Field { comment, .. } = self.field(key);
        let name = if keys::NETWORKS.contains(&key) { "network" } else { key };
        let flag = keys::flag(self.command, name);
        let (meaning, described) = match comment.split_once(" Default") {
            Some((meaning, default)) => (meaning, default.split_once(": ").map_or("", |(_, default)| default)),
            None => (comment.as_str(), ""),
        };
        let help = flag.and_then(|flag| flag.get_help()).map(ToString::to_string);
        let meaning = help
            .as_deref()
            .map_or(meaning, |help| help.split(" [default").next().unwrap_or(help));
        let default = key.split('.').fold(&self.defaults, |value, name| &value[name]);
        let takes_value = flag.is_none_or(|flag| flag.get_action().takes_values());
        let default = match default {
            _ if !takes_value => "`false`".into(),
            Value::Null | Value::Array(_) | Value::Object(_) => described.trim_end_matches('.').to_owned(),
            Value::String(text) if text.is_empty() => String::new(),
            value => format!("`{}`", keys::plain(value)),
        };
        // Those of a study and of checks are set by flags alone.
        let in_file = matches!(self.subcommand, "select" | "finetune");
        let cells = [
            flag.and_then(|flag| flag.get_long())
                .map_or_else(String::new, |long| format!("`--{long}`")),
            if in_file { format!("`{key}`") } else { String::new() },
            values(self.subcommand, key),
            default,
            meaning.trim_end_matches('.').to_owned(),
        ];
        format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
    }

    /// The flags that no setting is behind.
    fn others(&self, page: &mut String) {
        for argument in self.command.get_arguments() {
            let Some(long @ ("config" | "threads")) = argument.get_long() else {
                continue;
            };
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let (help, default) = help.split_once(" [default: ").unwrap_or((&help, ""));
            *page += &format!("| `--{long}` | | | {} | {help} |\n", default.trim_end_matches(']'));
        }
    }
}

fn page() -> String {
    let command = cli::command();
    let structs = structs();
    let mut page = INTRO.to_owned();
    for (subcommand, kind, words) in [
        ("select", "SelectSettings", ""),
        ("finetune", "FinetuneSettings", ""),
        (
            "study",
            "StudySettings",
            "All of `tamis select` but `--agent` and `--max-time`, and these flags.",
        ),
        (
            "check clusters",
            "CheckClustersSettings",
            "All of `tamis select`, and these flags.",
        ),
        (
            "check proxy",
            "CheckProxySettings",
            "All of `tamis select`, and these flags.",
        ),
        (
            "check agent",
            "CheckAgentSettings",
            "All of `tamis select` but `--agent`, and these flags.",
        ),
    ] {
        page += &format!("\n## tamis {subcommand}\n\n");
        if !words.is_empty() {
            page += &format!("{words}\n\n");
        }
        page += "| Flag | Key | Values | Default | Meaning |\n|---|---|---|---|---|\n";
        let source = Source {
            command: cli::find(&command, subcommand).expect("a subcommand"),
            subcommand,
            kind,
            defaults: cli::defaults(subcommand),
            structs: &structs,
        };
        source.rows("", &mut page);
        if words.is_empty() {
            source.others(&mut page);
        }
    }
    page
}

#[test]
fn the_page_of_settings_has_them_all() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = page();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("makes the folder");
        fs::write(&path, &page).expect("writes the page");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let other = page.lines().zip(there.lines()).find(|(now, there)| now != there);
    assert!(
        page == there,
        "docs/reference/settings.md is not what the settings are (first difference: {other:?}); write it anew with \
         `UPDATE_REFERENCE=1 cargo test -p tamis-cli --lib reference`"
    );
}

#[test]
fn every_flag_is_on_the_page() {
    let (command, page) = (cli::command(), page());
    for subcommand in cli::WITH_SETTINGS {
        let command = cli::find(&command, subcommand).expect("a subcommand");
        for argument in command.get_arguments() {
            let long = argument.get_long().expect("a long flag");
            if long != "help" && long != "help-all" {
                assert!(page.contains(&format!("`--{long}`")), "--{long} of {subcommand}");
            }
        }
    }
}
