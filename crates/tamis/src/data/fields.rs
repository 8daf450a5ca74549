//! Which fields of a record mean what, and which task that makes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Error, Result,
    data::{
        Input, TaskKind,
        source::{Fields, name_of},
    },
};

/// The roles that the setting `field` may name.
const ROLES: [&str; 14] = [
    "text",
    "label",
    "premise",
    "hypothesis",
    "question",
    "choices",
    "answer",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "messages",
    "conversations",
];

/// The task's roles in each shape that is known, most particular first. Optional roles are not listed.
const SHAPES: [(TaskKind, &[&str]); 7] = [
    (TaskKind::Choice, &["question", "choices", "answer"]),
    (TaskKind::Pair, &["premise", "hypothesis", "label"]),
    (TaskKind::Classification, &["text", "label"]),
    (TaskKind::Response, &["messages"]),
    (TaskKind::Response, &["conversations"]),
    (TaskKind::Response, &["prompt", "completion"]),
    (TaskKind::Response, &["instruction", "output"]),
];

/// How records of one data set are read: the shape, and what its roles are called in the user's files.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    names: BTreeMap<String, String>,
    shape: usize,
}

/// What stands in the target's place, before labels are numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Label(String),
    Choice(u32),
    None,
}

/// What a record lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) role: String,
    /// What the role is called in the user's files.
    pub(crate) field: String,
    /// The fields that the record has.
    pub(crate) have: String,
}

/// Checks the setting `field`.
///
/// # Errors
///
/// If a role is unknown.
pub(crate) fn check_names(names: &BTreeMap<String, String>) -> Result<()> {
    match names.keys().find(|role| !ROLES.contains(&role.as_str())) {
        Some(role) => Err(Error::setting(
            "field",
            format!("one of the roles {}", ROLES.join(", ")),
            format!("`{role}`"),
        )
        .with_hint("write the role first, then your field: `field text=review`")),
        None => Ok(()),
    }
}

impl Reading {
    /// The shape that a record has; if it has none, what it lacks.
    pub(crate) fn detect(
        fields: &Fields,
        names: &BTreeMap<String, String>,
        task: Option<TaskKind>,
    ) -> Result<Self, Missing> {
        let reading = |shape| Self {
            names: names.clone(),
            shape,
        };
        let allowed = || (0..SHAPES.len()).filter(|&shape| task.is_none_or(|task| SHAPES[shape].0 == task));
        let missing = |shape: usize| -> Vec<&str> {
            let reading = reading(shape);
            SHAPES[shape]
                .1
                .iter()
                .copied()
                .filter(|role| !fields.contains_key(reading.name(role)))
                .collect()
        };
        if let Some(shape) = allowed().find(|&shape| missing(shape).is_empty()) {
            return Ok(reading(shape));
        }
        // The shape that comes nearest names the missing field; plain classification where nothing comes near.
        let present = |shape: usize| SHAPES[shape].1.len() - missing(shape).len();
        let nearest = allowed()
            .max_by_key(|&shape| {
                let plain = SHAPES[shape].0 == TaskKind::Classification;
                let lacking = if present(shape) == 0 { 0 } else { missing(shape).len() };
                (present(shape), std::cmp::Reverse(lacking), plain)
            })
            .unwrap_or(2);
        let role = missing(nearest).first().map_or("", |role| role).to_owned();
        let have: Vec<&str> = fields.keys().map(String::as_str).collect();
        let have = if have.is_empty() {
            "no field".to_owned()
        } else {
            have.join(", ")
        };
        Err(Missing {
            field: reading(nearest).name(&role).to_owned(),
            role,
            have,
        })
    }

    pub(crate) fn kind(&self) -> TaskKind {
        SHAPES[self.shape].0
    }

    fn name<'a>(&'a self, role: &'a str) -> &'a str {
        self.names.get(role).map_or(role, String::as_str)
    }

    /// The example in a record, or why it holds none.
    pub(crate) fn example(&self, fields: &Fields) -> Result<(Input, Target), String> {
        let field = |role| {
            let name = self.name(role);
            fields.get(name).map(|value| (name, value)).ok_or_else(|| {
                let have: Vec<&str> = fields.keys().map(String::as_str).collect();
                format!("expected a field `{name}`, found {}", have.join(", "))
            })
        };
        let text = |role| field(role).and_then(|(name, value)| text_of(name, value));
        let label = || {
            field("label")
                .and_then(|(name, value)| label_of(name, value))
                .map(Target::Label)
        };
        Ok(match self.shape {
            0 => {
                let (name, value) = field("choices")?;
                let choices = choices_of(name, value)?;
                let (name, value) = field("answer")?;
                let answer = answer_of(name, value, &choices)?;
                (
                    Input::Choice {
                        question: text("question")?,
                        choices,
                    },
                    Target::Choice(answer),
                )
            }
            1 => (
                Input::Pair {
                    premise: text("premise")?,
                    hypothesis: text("hypothesis")?,
                },
                label()?,
            ),
            2 => (Input::Text(text("text")?), label()?),
            3 | 4 => {
                let (name, value) = field(SHAPES[self.shape].1[0])?;
                (messages_of(name, value)?, Target::None)
            }
            5 => {
                // Either may be a text, or, in conversational data sets, a list of messages.
                let part = |role| {
                    field(role).and_then(|(name, value)| match value {
                        Value::Array(_) => contents(name, &turns_of(name, value)?),
                        text => text_of(name, text),
                    })
                };
                (
                    Input::Response {
                        prompt: part("prompt")?,
                        response: part("completion")?,
                    },
                    Target::None,
                )
            }
            _ => {
                let mut prompt = String::from(text("instruction")?);
                if let Some(Value::String(input)) = fields.get(self.name("input"))
                    && !input.trim().is_empty()
                {
                    prompt.push_str("\n\n");
                    prompt.push_str(input);
                }
                (
                    Input::Response {
                        prompt: prompt.into(),
                        response: text("output")?,
                    },
                    Target::None,
                )
            }
        })
    }
}

fn text_of(name: &str, value: &Value) -> Result<Box<str>, String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.as_str().into()),
        other => Err(format!("expected a text in `{name}`, found {}", name_of(other))),
    }
}

fn label_of(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        other => {
            let found = match other {
                Value::Number(number) => number.to_string(),
                other => name_of(other).to_owned(),
            };
            Err(format!(
                "expected a label (a text, a whole number, true or false) in `{name}`, found {found}"
            ))
        }
    }
}

fn choices_of(name: &str, value: &Value) -> Result<Box<[Box<str>]>, String> {
    let Value::Array(items) = value else {
        return Err(format!(
            "expected a list of at least two choices in `{name}`, found {}",
            name_of(value)
        ));
    };
    if items.len() < 2 {
        return Err(format!(
            "expected a list of at least two choices in `{name}`, found {}",
            items.len()
        ));
    }
    items
        .iter()
        .map(|item| match item {
            Value::String(text) => Ok(text.as_str().into()),
            Value::Number(number) => Ok(number.to_string().into()),
            other => Err(format!("expected texts in `{name}`, found {}", name_of(other))),
        })
        .collect()
}

/// The index of the right choice: a letter (`B` is 1), an index from 0 (as a number or a text), or the choice's own text.
fn answer_of(name: &str, value: &Value, choices: &[Box<str>]) -> Result<u32, String> {
    let index = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => {
            let text = text.trim();
            let same: Vec<u64> = (0..choices.len() as u64)
                .filter(|&i| choices[i as usize].trim() == text)
                .collect();
            match text.as_bytes() {
                _ if same.len() == 1 => Some(same[0]),
                [letter] if letter.is_ascii_alphabetic() => Some(u64::from(letter.to_ascii_uppercase() - b'A')),
                _ => text.parse().ok(),
            }
        }
        _ => None,
    };
    index
        .filter(|&index| index < choices.len() as u64)
        .map(|index| index as u32)
        .ok_or_else(|| {
            let found = match value {
                Value::String(_) | Value::Number(_) => value.to_string(),
                other => name_of(other).to_owned(),
            };
            let last = (b'A' + (choices.len().min(26) - 1) as u8) as char;
            format!(
                "expected an answer from A to {last}, or from 0 to {}, in `{name}`, found {found}",
                choices.len() - 1
            )
        })
}

/// The last answer of the assistant, and everything before it.
fn messages_of(name: &str, value: &Value) -> Result<Input, String> {
    let turns = turns_of(name, value)?;
    let Some(last) = turns.iter().rposition(|(role, _)| matches!(*role, "assistant" | "gpt")) else {
        return Err(no_messages(name, "none of the assistant's"));
    };
    Ok(Input::Response {
        prompt: contents(name, &turns[..last])?,
        response: contents(name, &turns[last..=last])?,
    })
}

/// The role and the content of each message of a list.
fn turns_of<'a>(name: &str, value: &'a Value) -> Result<Vec<(&'a str, &'a str)>, String> {
    let Value::Array(items) = value else {
        return Err(no_messages(name, name_of(value)));
    };
    items
        .iter()
        .map(|item| {
            // ShareGPT files say `from` and `value` where the others say `role` and `content`.
            let part = |a: &str, b: &str| item.get(a).or_else(|| item.get(b)).and_then(Value::as_str);
            part("role", "from")
                .zip(part("content", "value"))
                .ok_or_else(|| no_messages(name, "one without"))
        })
        .collect()
}

/// What is said in all of these messages.
fn contents(name: &str, turns: &[(&str, &str)]) -> Result<Box<str>, String> {
    let contents: Vec<&str> = turns.iter().map(|(_, content)| *content).collect();
    let text = contents.join("\n\n");
    if text.trim().is_empty() {
        return Err(no_messages(name, "an empty turn"));
    }
    Ok(text.into())
}

fn no_messages(name: &str, found: &str) -> String {
    format!("expected a list of messages with role and content in `{name}`, found {found}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other} is no object"),
        }
    }

    fn read(value: Value) -> Result<(TaskKind, Input, Target), String> {
        let fields = fields(value);
        let reading = Reading::detect(&fields, &BTreeMap::new(), None).map_err(|missing| format!("{missing:?}"))?;
        reading
            .example(&fields)
            .map(|(input, target)| (reading.kind(), input, target))
    }

    #[test]
    fn each_task_is_known_by_its_fields() {
        let label = |text: &str| Target::Label(text.into());
        let response = |prompt: &str| Input::Response {
            prompt: prompt.into(),
            response: "r".into(),
        };
        assert_eq!(
            read(json!({"text": "t", "label": 3})),
            Ok((TaskKind::Classification, Input::Text("t".into()), label("3")))
        );
        assert_eq!(
            read(json!({"premise": "p", "hypothesis": "h", "label": "no"})),
            Ok((
                TaskKind::Pair,
                Input::Pair {
                    premise: "p".into(),
                    hypothesis: "h".into()
                },
                label("no")
            ))
        );
        assert_eq!(
            read(json!({"prompt": "p", "completion": "r"})).map(|r| r.1),
            Ok(response("p"))
        );
        assert_eq!(
            read(json!({"instruction": "i", "input": "x", "output": "r"})).map(|r| r.1),
            Ok(response("i\n\nx"))
        );
        assert_eq!(
            read(
                json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},
                {"role": "assistant", "content": "r"}]})
            )
            .map(|r| r.1),
            Ok(response("s\n\nu"))
        );
        assert_eq!(
            read(json!({"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "r"}]}))
                .map(|r| r.1),
            Ok(response("u"))
        );
        let said = |role: &str, content: &str| json!([{"role": role, "content": content}]);
        assert_eq!(
            read(json!({"prompt": said("user", "u"), "completion": said("assistant", "r")})).map(|r| r.1),
            Ok(response("u"))
        );
        let empty = read(json!({"prompt": said("user", " "), "completion": "r"})).expect_err("nothing is said");
        insta::assert_snapshot!(empty, @"expected a list of messages with role and content in `prompt`, found an empty turn");
    }

    #[test]
    fn a_label_that_is_none_is_shown() {
        let wrong = read(json!({"text": "t", "label": 1.5})).expect_err("no label");
        insta::assert_snapshot!(wrong, @"expected a label (a text, a whole number, true or false) in `label`, found 1.5");
    }

    #[test]
    fn an_answer_is_a_letter_an_index_or_the_choice_itself() {
        for (answer, want) in [
            (json!("B"), 1),
            (json!("b"), 1),
            (json!(1), 1),
            (json!("1"), 1),
            (json!("yes"), 0),
        ] {
            let read = read(json!({"question": "q", "choices": ["yes", "no"], "answer": answer}));
            assert_eq!(read.map(|r| r.2), Ok(Target::Choice(want)), "{answer}");
        }
        let wrong = read(json!({"question": "q", "choices": ["yes", "no"], "answer": "C"})).expect_err("there is no C");
        insta::assert_snapshot!(wrong, @r#"expected an answer from A to B, or from 0 to 1, in `answer`, found "C""#);
    }

    #[test]
    fn what_is_missing_is_named_by_the_nearest_task() {
        let missing = |value| {
            Reading::detect(&fields(value), &BTreeMap::new(), None)
                .expect_err("something is missing")
                .field
        };
        assert_eq!(missing(json!({"id": 1, "text": "t"})), "label");
        assert_eq!(missing(json!({"premise": "p", "label": "l"})), "hypothesis");
        assert_eq!(missing(json!({"question": "q", "answer": "A"})), "choices");
        assert_eq!(missing(json!({"body": "b"})), "text");
    }

    #[test]
    fn fields_of_other_names_are_mapped() {
        let names = BTreeMap::from([
            ("text".to_owned(), "review".to_owned()),
            ("label".to_owned(), "stars".to_owned()),
        ]);
        let fields = fields(json!({"review": "good", "stars": 5, "text": 7}));
        let reading = Reading::detect(&fields, &names, None).expect("mapped");
        assert_eq!(
            reading.example(&fields),
            Ok((Input::Text("good".into()), Target::Label("5".into())))
        );
        assert!(check_names(&BTreeMap::from([("body".to_owned(), "text".to_owned())])).is_err());
    }
}
