//! What of a command line is not to be written into records and reports.

use serde::Serializer;

const HIDDEN: &str = "***";

/// Writes a command without its secrets.
#[expect(clippy::ref_option, reason = "serde hands out the field as it is")]
pub(super) fn serialize<S: Serializer>(command: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match command {
        Some(command) => serializer.serialize_some(&without_secrets(command)),
        None => serializer.serialize_none(),
    }
}

/// A command with `***` in place of what looks like a secret, also within quotes: `API_KEY=...`, `--hf-token ...`, `--token=...`.
fn without_secrets(command: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(command.len()), command);
    while let Some(first) = rest.chars().next() {
        let is_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let end = if is_of_name(first) {
            rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (part, behind) = rest.split_at(end);
        shown += part;
        rest = behind;
        if is_secret(part)
            && let Some((between, value)) = value_behind(part, rest)
        {
            shown += between;
            shown += HIDDEN;
            rest = &rest[between.len() + value.len()..];
        }
    }
    shown
}

/// Whether values of a variable or flag of this name are secrets. A tokenizer's padding token is none, nor is the key of a field.
fn is_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    let mut words = name.rsplit(['_', '-']);
    let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match last {
        "SECRET" | "PASSWORD" | "APIKEY" => true,
        "TOKEN" => !["PAD", "EOS", "BOS", "UNK", "SEP", "MASK", "CLS", "STOP"].contains(&before),
        "KEY" => ["API", "ACCESS", "SECRET", "PRIVATE"].contains(&before),
        _ => false,
    }
}

/// The value behind a name, and what stands between them: `=`, or, behind a flag, blanks.
fn value_behind<'a>(name: &str, text: &'a str) -> Option<(&'a str, &'a str)> {
    let blanks = text.len() - text.trim_start().len();
    let between = if text.starts_with('=') {
        1
    } else if name.starts_with('-') && blanks > 0 {
        blanks
    } else {
        return None;
    };
    let value = &text[between..];
    let length = match value.chars().next()? {
        quote @ ('"' | '\'') => value[1..].find(quote).map_or(value.len(), |end| end + 2),
        _ => value
            .find(|c: char| c.is_whitespace() || "\"';)".contains(c))
            .unwrap_or(value.len()),
    };
    (length > 0).then(|| (&text[..between], &value[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_all_else_stays() {
        for (command, shown) in [
            ("python  train.py --gpu {slot}", "python  train.py --gpu {slot}"),
            (
                "t --max-tokens 9 --pad-token '<p>' --text-key a",
                "t --max-tokens 9 --pad-token '<p>' --text-key a",
            ),
            ("env WANDB_API_KEY=abc python t.py", "env WANDB_API_KEY=*** python t.py"),
            ("HF_TOKEN='a b' sh -c 'x y'", "HF_TOKEN=*** sh -c 'x y'"),
            ("t --hf-token  hf_1 --rows 3", "t --hf-token  *** --rows 3"),
            ("sh -c \"t --lr=1 --token hf_1\"", "sh -c \"t --lr=1 --token ***\""),
            ("(cd a;TOKEN=x t) it\\'s", "(cd a;TOKEN=*** t) it\\'s"),
            ("t --password=p é", "t --password=*** é"),
            ("t --token", "t --token"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(command), shown);
        }
    }
}
