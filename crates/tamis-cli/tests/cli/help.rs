//! `--help` is part of the product: it changes only on purpose.

use crate::fixture::{Fixture, succeeds};

fn help(arguments: &[&str]) -> String {
    let fixture = Fixture::new();
    let mut command = fixture.tamis();
    command.args(arguments).env("COLUMNS", "100");
    succeeds(command)
}

#[test]
fn the_command_says_what_it_does() {
    insta::assert_snapshot!(help(&["--help"]));
}

#[test]
fn select_lists_the_rest_with_what_values_mean() {
    insta::assert_snapshot!(help(&["select", "--help-all"]));
}

#[test]
fn a_shell_completes_flags_and_values() {
    let script = help(&["completions", "bash"]);
    assert!(
        script.contains("--row-order") && script.contains("local-search"),
        "{script}"
    );
}

#[test]
fn select_lists_its_flags_with_defaults() {
    insta::assert_snapshot!(help(&["select", "--help"]));
}

#[test]
fn finetune_lists_its_flags_with_defaults() {
    insta::assert_snapshot!(help(&["finetune", "--help"]));
}

#[test]
fn study_lists_its_flags_with_defaults() {
    insta::assert_snapshot!(help(&["study", "--help"]));
}
