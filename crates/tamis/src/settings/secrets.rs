//! What of a command line is not to be written into records and reports.

use serde::Serializer;

/// A word of the names of variables and flags whose values are secrets, in upper case.
const SECRETS: [&str; 5] = ["KEY", "APIKEY", "TOKEN", "SECRET", "PASSWORD"];
const HIDDEN: &str = "***";

/// Writes a command without its secrets.
#[expect(clippy::ref_option, reason = "serde hands out the field as it is")]
pub(super) fn serialize<S: Serializer>(command: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match command {
        Some(command) => serializer.serialize_some(&without_secrets(command)),
        None => serializer.serialize_none(),
    }
}

/// A command with `***` in place of what looks like a secret: `API_KEY=...`, `--hf-token ...`, `--token=...`.
fn without_secrets(command: &str) -> String {
    let mut shown = String::with_capacity(command.len());
    let mut hides_next = false;
    for word in words(command) {
        let (name, value) = word
            .split_once('=')
            .map_or((word, None), |(name, value)| (name, Some(value)));
        let upper = name.to_uppercase();
        let secret = upper.split(['_', '-']).any(|part| SECRETS.contains(&part));
        match value {
            Some(_) if secret => shown += &format!("{name}={HIDDEN}"),
            _ if hides_next && !word.trim().is_empty() => shown += HIDDEN,
            _ => shown += word,
        }
        if !word.trim().is_empty() {
            hides_next = secret && value.is_none() && name.starts_with('-');
        }
    }
    shown
}

/// The words of a command and what stands between them, in their order; what is quoted is of one word.
fn words(command: &str) -> impl Iterator<Item = &str> {
    let mut rest = command;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let mut quote = None;
        let ends = |c: char| {
            match quote {
                Some(open) if c == open => quote = None,
                None if c == '"' || c == '\'' => quote = Some(c),
                _ => {}
            }
            quote.is_none() && c.is_whitespace() != first.is_whitespace()
        };
        let end = rest.find(ends).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = behind;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_all_else_stays() {
        for (command, shown) in [
            ("python  train.py --gpu {slot}", "python  train.py --gpu {slot}"),
            ("t --max-tokens 9 --tokenizer t", "t --max-tokens 9 --tokenizer t"),
            ("env WANDB_API_KEY=abc python t.py", "env WANDB_API_KEY=*** python t.py"),
            ("HF_TOKEN='a b' sh -c 'x y'", "HF_TOKEN=*** sh -c 'x y'"),
            ("t --hf-token  hf_1 --rows 3", "t --hf-token  *** --rows 3"),
            ("t --password=p \"it's\" new", "t --password=*** \"it's\" new"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(command), shown);
        }
    }
}
