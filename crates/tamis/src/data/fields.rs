//! Which fields of a record mean what, and which task that makes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Error, Result,
    data::{
        Input, TaskKind,
        answers::{AnswerReading, RawAnswer},
        chat,
        labels::Label,
        rejects::{Fault, FaultKind},
        source::{Fields, name_of, names_of, text::MOST_BYTES},
    },
};

/// The roles that the setting `field` may name.
const ROLES: [&str; 17] = [
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
    "system",
    "history",
    "tools",
];

/// The task's roles in each shape that is known, most particular first, and those that a row need not have.
const SHAPES: [(TaskKind, &[&str], &[&str]); 8] = [
    (TaskKind::Choice, &["question", "choices", "answer"], &[]),
    // A column a choice, as in MMLU: A, B and so on as far as there are any.
    (TaskKind::Choice, &["question", "A", "B", "answer"], &[]),
    (TaskKind::Pair, &["premise", "hypothesis", "label"], &[]),
    (TaskKind::Classification, &["text", "label"], &[]),
    (TaskKind::Response, &["messages"], &["system", "tools"]),
    (TaskKind::Response, &["conversations"], &["system", "tools"]),
    (TaskKind::Response, &["prompt", "completion"], &["system", "tools"]),
    (
        TaskKind::Response,
        &["instruction", "output"],
        &["input", "history", "system", "tools"],
    ),
];

/// Whether rows of a shape have all these roles, or may have them.
fn has_roles(shape: usize, names: &BTreeMap<String, String>) -> bool {
    let (_, needed, optional) = SHAPES[shape];
    names
        .keys()
        .all(|role| needed.iter().chain(optional).any(|known| known == role))
}

/// How records of one data set are read: the shape, and what its roles are called in the user's files.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    names: BTreeMap<String, String>,
    shape: usize,
    /// How answers are to be read, where the user says so.
    pub(crate) answers: Option<AnswerReading>,
}

/// What stands in the target's place, before labels are numbered and answers are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Label(Label),
    /// An answer that is yet to be read.
    Answer(RawAnswer),
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

/// Checks the setting `field`, where rows are said to be of this task.
///
/// # Errors
///
/// If a role is unknown, or no kind of row has them all.
pub(crate) fn check_names(names: &BTreeMap<String, String>, task: Option<TaskKind>) -> Result<()> {
    if let Some(role) = names.keys().find(|role| !ROLES.contains(&role.as_str())) {
        return Err(Error::setting(
            "field",
            format!("one of the roles {}", ROLES.join(", ")),
            format!("`{role}`"),
        )
        .with_hint("write the role first, then your field: `field text=review`"));
    }
    let mut shapes = shapes_of(task);
    if shapes.any(|shape| has_roles(shape, names)) {
        return Ok(());
    }
    let kind = task.map_or_else(
        || "one kind of row".to_owned(),
        |task| format!("rows of the task `{task}`"),
    );
    let roles: Vec<String> = names.keys().map(|role| format!("`{role}`")).collect();
    let set = |shape: usize| {
        let (_, needed, optional) = SHAPES[shape];
        let more = if optional.is_empty() { "" } else { ", perhaps " };
        format!("{}{more}{}", needed.join(" and "), optional.join(", "))
    };
    // Columns of choices have no roles.
    let named = shapes_of(task).filter(|&shape| SHAPES[shape].1.iter().all(|role| ROLES.contains(role)));
    let sets: Vec<String> = named.map(set).collect();
    Err(Error::setting("field", format!("roles of {kind}"), roles.join(", "))
        .with_hint(format!("roles that go together: {}", sets.join("; "))))
}

/// The shapes of rows of a task, or of any.
fn shapes_of(task: Option<TaskKind>) -> impl Iterator<Item = usize> {
    (0..SHAPES.len()).filter(move |&shape| task.is_none_or(|task| SHAPES[shape].0 == task))
}

impl Reading {
    /// The shape that a record has; if it has none, what it lacks.
    pub(crate) fn detect(
        fields: &Fields,
        names: &BTreeMap<String, String>,
        task: Option<TaskKind>,
    ) -> Result<Self, Missing> {
        let (names, answers) = with_answer_reading(names);
        let reading = |shape| Self {
            names: names.clone(),
            shape,
            answers,
        };
        let allowed = || shapes_of(task).filter(|&shape| has_roles(shape, &names));
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
            .unwrap_or(3);
        let role = missing(nearest).first().map_or("", |role| role).to_owned();
        let have = if fields.is_empty() {
            "no field".to_owned()
        } else {
            names_of(fields)
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

    /// What the fields that every row has to have are called.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        SHAPES[self.shape].1.iter().map(|role| self.name(role))
    }

    /// What the user calls fields that a row need not have.
    pub(crate) fn optional_fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let (_, _, optional) = SHAPES[self.shape];
        let named = |&role: &&'static str| Some((role, self.names.get(role)?.as_str()));
        optional.iter().filter_map(named)
    }

    fn name<'a>(&'a self, role: &'a str) -> &'a str {
        self.names.get(role).map_or(role, String::as_str)
    }

    /// The example in a record, or why it holds none.
    pub(crate) fn example(&self, fields: &Fields) -> Result<(Input, Target), Fault> {
        let field = |role| self.field(fields, role);
        let text = |role| field(role).and_then(|(name, value)| text_of(name, value));
        let label = || {
            field("label")
                .and_then(|(name, value)| Label::of(name, value))
                .map(Target::Label)
        };
        Ok(match self.shape {
            0 => {
                let (name, value) = field("choices")?;
                let Choices { texts, keys, numbers } = Choices::of(name, value)?;
                let (name, value) = field("answer")?;
                let answer = answer_of(name, value, !numbers)?;
                // Choices with names of their own say themselves which one is meant.
                let key = keys.iter().position(|key| **key == *answer.text);
                let target = key.map_or(Target::Answer(answer), |choice| Target::Choice(choice as u32));
                (
                    Input::Choice {
                        question: text("question")?,
                        choices: texts,
                    },
                    target,
                )
            }
            1 => {
                let choices = self.lettered(fields)?;
                let (name, value) = field("answer")?;
                (
                    Input::Choice {
                        question: text("question")?,
                        choices,
                    },
                    Target::Answer(answer_of(name, value, true)?),
                )
            }
            2 => (
                Input::Pair {
                    premise: text("premise")?,
                    hypothesis: text("hypothesis")?,
                },
                label()?,
            ),
            3 => (Input::Text(text("text")?), label()?),
            _ => (self.conversation(fields)?, Target::None),
        })
    }
}

impl Reading {
    /// The field of a role that a row must have, and its name.
    fn field<'a>(&'a self, fields: &'a Fields, role: &'a str) -> Result<(&'a str, &'a Value), Fault> {
        let name = self.name(role);
        fields.get(name).map(|value| (name, value)).ok_or_else(|| {
            let reason = format!("expected a field `{name}`, found {}", names_of(fields));
            Fault::new(FaultKind::Fields, reason)
        })
    }

    /// The conversation of a row, in whichever shape it has.
    fn conversation(&self, fields: &Fields) -> Result<Input, Fault> {
        let field = |role| self.field(fields, role);
        let optional = |role| field(role).ok();
        // Either may be a text, or, in conversational data sets, a list of messages.
        let part = |role, speaker| {
            field(role).and_then(|(name, value)| match value {
                Value::Array(_) => chat::turns(name, value),
                text => Ok(vec![chat::turn(speaker, &text_of(name, text)?)]),
            })
        };
        let optional_text = |role| match optional(role) {
            None | Some((_, Value::Null)) => Ok(None),
            Some((_, Value::String(text))) if text.trim().is_empty() => Ok(None),
            Some((name, value)) => text_of(name, value).map(Some),
        };
        let (asked, answered, mut turns) = match self.shape {
            4 | 5 => {
                let (name, value) = field(SHAPES[self.shape].1[0])?;
                (name, name, chat::turns(name, value)?)
            }
            6 => {
                let turns = [part("prompt", "user")?, part("completion", "assistant")?];
                (self.name("prompt"), self.name("completion"), turns.concat())
            }
            _ => {
                let mut turns =
                    optional("history").map_or(Ok(Vec::new()), |(name, value)| chat::history(name, value))?;
                let instruction = field("instruction").and_then(|(name, value)| text_of(name, value))?;
                let asked: Vec<Box<str>> = [Some(instruction), optional_text("input")?]
                    .into_iter()
                    .flatten()
                    .collect();
                turns.push(chat::turn("user", &asked.join("\n\n")));
                turns.extend(part("output", "assistant")?);
                (self.name("instruction"), self.name("output"), turns)
            }
        };
        if let Some(system) = optional_text("system")?
            && turns.first().is_none_or(|first| first["role"] != "system")
        {
            turns.insert(0, chat::turn("system", &system));
        }
        let tools = optional("tools").map_or(Ok(None), |(name, value)| chat::tools(name, value))?;
        chat::input(asked, answered, turns, tools)
    }

    /// The choices of a row that has a column for each.
    fn lettered(&self, fields: &Fields) -> Result<Box<[Box<str>]>, Fault> {
        let columns = ('A'..='Z').map_while(|letter| {
            let letter = letter.to_string();
            let name = self.name(&letter).to_owned();
            let value = fields.get(&name)?;
            Some((name, value))
        });
        let columns: Vec<(String, &Value)> = columns.collect();
        // The last columns are empty where a question has fewer choices.
        let empty = |value: &Value| value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty());
        let count = columns
            .iter()
            .rposition(|(_, value)| !empty(value))
            .map_or(0, |last| last + 1);
        columns[..count.max(2)]
            .iter()
            .map(|(name, value)| choice_of(name, value))
            .collect()
    }
}

/// The names of fields without what the one of the answer says about its reading, and that.
fn with_answer_reading(names: &BTreeMap<String, String>) -> (BTreeMap<String, String>, Option<AnswerReading>) {
    let mut names = names.clone();
    let split = names.get("answer").and_then(|name| {
        let (name, reading) = name.rsplit_once(':')?;
        Some((name.to_owned(), AnswerReading::named(reading)?))
    });
    let Some((name, reading)) = split else {
        return (names, None);
    };
    names.insert(
        "answer".to_owned(),
        if name.is_empty() { "answer".to_owned() } else { name },
    );
    (names, Some(reading))
}

fn text_of(name: &str, value: &Value) -> Result<Box<str>, Fault> {
    match value {
        Value::String(text) if text.len() > MOST_BYTES => Err(Fault::new(
            FaultKind::TooLong,
            format!(
                "expected a text of at most {} MiB in `{name}`, found a longer one",
                MOST_BYTES >> 20
            ),
        )),
        Value::String(text) if !text.trim().is_empty() => Ok(text.as_str().into()),
        other => Err(Fault::other(format!(
            "expected a text in `{name}`, found {}",
            name_of(other)
        ))),
    }
}

/// The choices of a question.
struct Choices {
    texts: Box<[Box<str>]>,
    /// What each is called, where the file says so.
    keys: Vec<Box<str>>,
    /// Whether they are numbers.
    numbers: bool,
}

impl Choices {
    /// From a list of texts, a list of objects, or an object of two lists (`text` and `label`); in CSV as the JSON of one.
    fn of(name: &str, value: &Value) -> Result<Self, Fault> {
        let wrong = |found: &str| {
            let reason = format!("expected a list of at least two choices in `{name}`, found {found}");
            Fault::new(FaultKind::Other, reason)
        };
        if let Value::String(text) = value {
            let value = serde_json::from_str(text).map_err(|_| {
                let like_python = text.trim_start().starts_with(['[', '{']);
                let found = if like_python {
                    "a list as Python shows it"
                } else {
                    "a text"
                };
                Fault {
                    kind: if like_python {
                        FaultKind::PythonList
                    } else {
                        FaultKind::Other
                    },
                    ..wrong(found)
                }
            })?;
            return match value {
                Value::Array(_) | Value::Object(_) => Self::of(name, &value),
                _ => Err(wrong("a text")),
            };
        }
        let part = |object: &Value, key: &str| object.get(key).cloned().unwrap_or(Value::Null);
        let (texts, keys) = match value {
            Value::Array(items) if items.iter().any(Value::is_object) => (
                items.iter().map(|item| part(item, "text")).collect(),
                items.iter().map(|item| part(item, "label")).collect(),
            ),
            Value::Array(items) => (items.clone(), Vec::new()),
            Value::Object(_) => match (part(value, "text"), part(value, "label")) {
                (Value::Array(texts), Value::Array(keys)) if texts.len() == keys.len() => (texts, keys),
                (Value::Array(texts), Value::Null) => (texts, Vec::new()),
                _ => return Err(wrong("an object without the lists `text` and `label`")),
            },
            other => return Err(wrong(name_of(other))),
        };
        if texts.len() < 2 {
            return Err(wrong(&texts.len().to_string()));
        }
        let keys: Option<Vec<Box<str>>> = keys.iter().map(|key| plain(key).map(Into::into)).collect();
        Ok(Self {
            texts: texts
                .iter()
                .map(|text| choice_of(name, text))
                .collect::<Result<_, _>>()?,
            keys: keys.unwrap_or_default(),
            numbers: texts.iter().any(Value::is_number),
        })
    }
}

fn choice_of(name: &str, value: &Value) -> Result<Box<str>, Fault> {
    plain(value)
        .map(Into::into)
        .ok_or_else(|| Fault::other(format!("expected texts in `{name}`, found {}", name_of(value))))
}

/// A text, or a number as a text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// An answer as a text; a whole number without the fraction that it has in some files.
fn answer_of(name: &str, value: &Value, choices_are_texts: bool) -> Result<RawAnswer, Fault> {
    let wrong = |found: &str| {
        Fault::new(
            FaultKind::Answer,
            format!("expected an answer in `{name}`, found {found}"),
        )
    };
    let text = plain(value).ok_or_else(|| wrong(name_of(value)))?;
    let text = text.trim();
    let answer = |text: &str| RawAnswer {
        text: text.into(),
        is_index: value.is_number() && choices_are_texts,
    };
    match text.strip_suffix(".0") {
        _ if text.is_empty() => Err(wrong("an empty text")),
        Some(whole) if whole.parse::<i64>().is_ok() => Ok(answer(whole)),
        _ => Ok(answer(text)),
    }
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
            .map_err(|fault| fault.reason)
    }

    #[test]
    fn each_task_is_known_by_its_fields() {
        let label = |text: &str| Target::Label(Label(text.into()));
        let response = |prompt: &str| Input::Response {
            prompt: prompt.into(),
            response: "r".into(),
            chat: None,
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
        // What is left out, or is no text and would be lost.
        assert_eq!(
            read(json!({"instruction": "i", "input": null, "output": "r"})).map(|r| r.1),
            Ok(response("i"))
        );
        assert_eq!(
            read(json!({"instruction": "i", "input": 17, "output": "r"})),
            Err("expected a text in `input`, found a number".to_owned())
        );
    }

    #[test]
    fn conversations_come_in_the_shapes_that_fine_tuners_have() {
        let said = |role: &str, content: &str| json!({"role": role, "content": content});
        let (user, assistant) = (said("user", "u"), said("assistant", "r"));
        let two = [user.clone(), assistant.clone()];
        let of = |row: Value| {
            read(row).map(|(kind, input, _)| {
                assert_eq!(kind, TaskKind::Response);
                (Value::from(input.messages().to_vec()), input.tools().cloned())
            })
        };
        let same = |row: Value| assert_eq!(of(row), Ok((json!(two), None)));
        same(json!({"prompt": [user], "completion": [assistant]}));
        same(json!({"prompt": "u", "completion": [assistant]}));
        same(json!({"messages": two}));
        same(json!({"messages": json!(two).to_string(), "tools": ""}));
        same(json!({"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "r"}]}));
        same(json!({"conversations": two, "system": " "}));
        same(json!({"instruction": "u", "input": "", "output": "r", "system": null, "history": []}));

        let with_system = [said("system", "s"), user.clone(), assistant.clone()];
        let tools = json!([{"name": "weather"}]);
        assert_eq!(
            of(json!({"messages": two, "tools": tools})),
            Ok((json!(two), Some(tools.clone())))
        );
        assert_eq!(
            of(json!({"conversations": two, "system": "s", "tools": tools.to_string()})),
            Ok((json!(with_system), Some(tools)))
        );
        assert_eq!(
            of(json!({"conversations": with_system, "system": "other"})),
            Ok((json!(with_system), None))
        );
        assert_eq!(
            of(json!({"instruction": "u", "output": "r", "system": "s", "history": [["a", "b"]]})),
            Ok((
                json!([
                    said("system", "s"),
                    said("user", "a"),
                    said("assistant", "b"),
                    user,
                    assistant
                ]),
                None
            ))
        );

        let complaint = |row: Value| of(row).expect_err("is refused");
        insta::assert_snapshot!(complaint(json!({"prompt": [said("user", " ")], "completion": "r"})), @"expected something said before the assistant's last turn in `prompt`, found none");
        insta::assert_snapshot!(complaint(json!({"prompt": "u", "completion": [user]})), @"expected a turn of the assistant in `completion`, found none");
        insta::assert_snapshot!(complaint(json!({"instruction": "u", "output": "r", "history": [["a"]]})), @"expected a list of pairs of texts in `history`, found another in it");
        insta::assert_snapshot!(complaint(json!({"instruction": "u", "output": "r", "history": [["a", ""]]})), @"expected a list of pairs of texts in `history`, found an empty answer");
    }

    #[test]
    fn choices_come_in_the_shapes_that_data_sets_have() {
        let shapes = [
            json!({"question": "q", "choices": ["yes", "no"], "answer": "B"}),
            json!({"question": "q", "choices": "[\"yes\", \"no\"]", "answer": "B"}),
            json!({"question": "q", "choices": {"text": ["yes", "no"], "label": ["1", "2"]}, "answer": 2}),
            json!({"question": "q", "choices": [{"label": "y", "text": "yes"}, {"label": "n", "text": "no"}], "answer": "n"}),
            json!({"question": "q", "A": "yes", "B": "no", "C": "", "answer": 1.0}),
        ];
        let targets: Vec<Target> = shapes
            .into_iter()
            .map(|row| {
                let (kind, input, target) = read(row).expect("is a question");
                assert_eq!(kind, TaskKind::Choice);
                assert_eq!(input.texts(), ["q", "yes", "no"]);
                target
            })
            .collect();
        let answer = |text: &str, is_index| {
            Target::Answer(RawAnswer {
                text: text.into(),
                is_index,
            })
        };
        assert_eq!(
            targets,
            [
                answer("B", false),
                answer("B", false),
                Target::Choice(1),
                Target::Choice(1),
                answer("1", true)
            ]
        );
        let python = read(json!({"question": "q", "choices": "['yes', 'no']", "answer": "B"})).expect_err("is no JSON");
        insta::assert_snapshot!(python, @"expected a list of at least two choices in `choices`, found a list as Python shows it");
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
            Ok((Input::Text("good".into()), Target::Label(Label("5".into()))))
        );
        let named = |roles: &[&str]| {
            roles
                .iter()
                .map(|role| ((*role).to_owned(), "field".to_owned()))
                .collect()
        };
        assert!(check_names(&named(&["body"]), None).is_err());
        // Roles that no row has together, or that rows of the task do not have.
        let said = check_names(&named(&["text", "premise"]), None)
            .expect_err("two kinds")
            .to_string();
        assert!(said.contains("`premise`, `text`"), "{said}");
        assert!(check_names(&named(&["text"]), Some(TaskKind::Pair)).is_err());
        assert!(check_names(&named(&["instruction", "input", "system"]), None).is_ok());
    }
}
