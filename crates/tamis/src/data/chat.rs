//! Conversations, in the shapes that data sets have them in, as the messages that chat templates take.
//!
//! A message is what OpenAI's is: `role` (`system`, `user`, `assistant` or `tool`), `content` (a text; null where there are only
//! calls), and where it has them `tool_calls`, `tool_call_id`, `name` and `reasoning_content`. Calls have their arguments as an object
//! where these can be parsed, which is what the templates of transformers expect.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::data::{
    Input,
    rejects::{Fault, FaultKind},
    source::name_of,
};

/// What a message has beside role, content and calls that a chat template may show.
const KEPT: [&str; 3] = ["name", "tool_call_id", "reasoning_content"];

/// A conversation that a prompt and a response do not say whole: one of several turns, or with a system prompt or tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    /// The turns in order; the last is the assistant's.
    pub messages: Vec<Value>,
    /// The tools that the assistant may call, a list.
    pub tools: Option<Value>,
}

/// The turns of a conversation that a prompt and its response say whole.
pub(crate) fn messages(prompt: &str, response: &str) -> Vec<Value> {
    vec![turn("user", prompt), turn("assistant", response)]
}

impl Input {
    /// The turns of a prompt/response row, the last the assistant's; none for other rows.
    pub fn messages(&self) -> Cow<'_, [Value]> {
        match self {
            Self::Response { chat: Some(chat), .. } => Cow::Borrowed(&chat.messages),
            Self::Response { prompt, response, .. } => Cow::Owned(messages(prompt, response)),
            _ => Cow::Borrowed(&[]),
        }
    }

    /// The tools that the assistant of a prompt/response row may call, a list.
    pub fn tools(&self) -> Option<&Value> {
        match self {
            Self::Response { chat: Some(chat), .. } => chat.tools.as_ref(),
            _ => None,
        }
    }
}

/// A turn that says this and no more.
pub(crate) fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// The example in a conversation: what the assistant says last, and everything before it. Later turns teach nothing and are left out.
/// `asked` and `answered` are the fields that the turns come from.
pub(crate) fn input(asked: &str, answered: &str, mut turns: Vec<Value>, tools: Option<Value>) -> Result<Input, Fault> {
    let lacks = |expected: &str, field: &str| Fault::other(format!("expected {expected} in `{field}`, found none"));
    let last = turns.iter().rposition(|turn| turn["role"] == "assistant");
    let last = last.ok_or_else(|| lacks("a turn of the assistant", answered))?;
    turns.truncate(last + 1);
    let said: Vec<Cow<'_, str>> = turns.iter().map(said_in).collect();
    let before: Vec<&str> = said[..last]
        .iter()
        .map(|said| &**said)
        .filter(|said| !said.trim().is_empty())
        .collect();
    if before.is_empty() {
        return Err(lacks("something said before the assistant's last turn", asked));
    }
    let (prompt, response) = (before.join("\n\n"), String::from(&*said[last]));
    let says_it_all = tools.is_none() && turns == messages(&prompt, &response);
    let chat = Chat { messages: turns, tools };
    Ok(Input::Response {
        prompt: prompt.into(),
        response: response.into(),
        chat: (!says_it_all).then(|| Box::new(chat)),
    })
}

/// What a turn says: its content, else its calls as JSON.
fn said_in(turn: &Value) -> Cow<'_, str> {
    let content = turn["content"].as_str().unwrap_or_default();
    match turn.get("tool_calls") {
        Some(calls) if content.trim().is_empty() => Cow::Owned(calls.to_string()),
        _ => Cow::Borrowed(content),
    }
}

/// The turns in a list of messages, OpenAI's or ShareGPT's; in CSV in the JSON of one.
pub(crate) fn turns(field: &str, value: &Value) -> Result<Vec<Value>, Fault> {
    list(field, value, "messages with role and content")?
        .iter()
        .zip(1..)
        .map(|(item, number)| Turn { field, number, item }.message())
        .collect()
}

/// The tools that a row has, if it has any; in CSV, and for LLaMA-Factory, in the JSON of a list.
pub(crate) fn tools(field: &str, value: &Value) -> Result<Option<Value>, Fault> {
    if value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty()) {
        return Ok(None);
    }
    let tools = list(field, value, "tools")?
        .iter()
        .map(|tool| match tool {
            Value::Object(_) => Ok(tool.clone()),
            Value::String(text) => serde_json::from_str(text).map_err(|_| not_a_list(field, "tools", "a text in it")),
            other => Err(not_a_list(
                field,
                "tools",
                &format!("one with {} in it", name_of(other)),
            )),
        })
        .collect::<Result<Vec<Value>, Fault>>()?;
    Ok((!tools.is_empty()).then_some(Value::Array(tools)))
}

/// The turns before an instruction: pairs of what was asked and answered, as LLaMA-Factory has them.
pub(crate) fn history(field: &str, value: &Value) -> Result<Vec<Value>, Fault> {
    if value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty()) {
        return Ok(Vec::new());
    }
    let pairs = list(field, value, "pairs of texts")?;
    let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
        Some([Value::String(asked), Value::String(answered)]) if !answered.trim().is_empty() => {
            Ok(messages(asked, answered))
        }
        Some([_, Value::String(_)]) => Err(not_a_list(field, "pairs of texts", "an empty answer")),
        _ => Err(not_a_list(field, "pairs of texts", "another in it")),
    };
    Ok(pairs
        .iter()
        .map(pair)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// The items of a list, or of the JSON of one.
fn list<'a>(field: &str, value: &'a Value, of: &str) -> Result<Cow<'a, [Value]>, Fault> {
    match value {
        Value::Array(items) => Ok(Cow::Borrowed(items)),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(items)) => Ok(Cow::Owned(items)),
            Err(_) if text.trim_start().starts_with(['[', '{']) => Err(Fault {
                kind: FaultKind::PythonList,
                ..not_a_list(field, of, "a list as Python shows it")
            }),
            _ => Err(not_a_list(field, of, name_of(value))),
        },
        other => Err(not_a_list(field, of, name_of(other))),
    }
}

fn not_a_list(field: &str, of: &str, found: &str) -> Fault {
    Fault::other(format!("expected a list of {of} in `{field}`, found {found}"))
}

/// An item of a list of messages.
struct Turn<'a> {
    field: &'a str,
    /// Its place in the list, from 1.
    number: usize,
    item: &'a Value,
}

impl Turn<'_> {
    /// The message that it is.
    fn message(&self) -> Result<Value, Fault> {
        // ShareGPT files say `from` and `value` where the others say `role` and `content`.
        let role = self.part("role").or_else(|| self.part("from"));
        let role = role.and_then(Value::as_str).ok_or_else(|| self.lacks("a role", role))?;
        let content = self.part("content").or_else(|| self.part("value"));
        let mut text = self.text(content)?;
        let mut calls = match self.part("tool_calls").or_else(|| self.part("function_call")) {
            Some(calls) => {
                calls_of(calls).ok_or_else(|| self.lacks("calls with the name of a function", Some(calls)))?
            }
            None => Vec::new(),
        };
        let role = match role.to_lowercase().as_str() {
            "human" | "user" => "user",
            "gpt" | "model" | "chatgpt" | "bot" | "assistant" => "assistant",
            "observation" | "function" | "tool" => "tool",
            "system" => "system",
            "developer" => "developer",
            "function_call" => {
                let parsed = text.as_deref().and_then(|text| serde_json::from_str(text).ok());
                if let Some(parsed) = parsed.as_ref().and_then(calls_of) {
                    (text, calls) = (None, parsed);
                }
                "assistant"
            }
            _ => role,
        };
        let says = !calls.is_empty() || text.as_ref().is_some_and(|text| !text.trim().is_empty());
        if role == "assistant" && !says {
            return Err(self.lacks("content or calls of tools", content));
        }
        if text.is_none() && calls.is_empty() {
            return Err(self.lacks("content", content));
        }
        let mut message = Map::new();
        message.insert("role".to_owned(), role.into());
        message.insert("content".to_owned(), text.map_or(Value::Null, Value::String));
        if !calls.is_empty() {
            message.insert("tool_calls".to_owned(), Value::Array(calls));
        }
        for key in KEPT {
            if let Some(value) = self.part(key).filter(|value| value.is_string()) {
                message.insert(key.to_owned(), value.clone());
            }
        }
        Ok(Value::Object(message))
    }

    /// A part of it; columnar files have null for what an item lacks.
    fn part(&self, key: &str) -> Option<&Value> {
        self.item.get(key).filter(|value| !value.is_null())
    }

    /// Its content, of which only texts are read where it is a list of parts.
    fn text(&self, content: Option<&Value>) -> Result<Option<String>, Fault> {
        match content {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Array(parts)) => Ok(Some(
                parts
                    .iter()
                    .filter_map(|part| part.as_str().or_else(|| part["text"].as_str()))
                    .collect(),
            )),
            other => Err(self.lacks("a text as content", other)),
        }
    }

    fn lacks(&self, what: &str, found: Option<&Value>) -> Fault {
        let Self { field, number, .. } = self;
        let found = found.map_or("none", name_of);
        Fault::other(format!("expected {what} in turn {number} of `{field}`, found {found}"))
    }
}

/// The calls in a list of them, in one alone, or in the JSON of either; `None` if it is something else.
fn calls_of(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(calls) => calls.iter().map(call_of).collect(),
        Value::Object(_) => Some(vec![call_of(value)?]),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(parsed @ (Value::Array(_) | Value::Object(_))) => calls_of(&parsed),
            _ => None,
        },
        _ => None,
    }
}

fn call_of(call: &Value) -> Option<Value> {
    let function = call.get("function").unwrap_or(call);
    let name = function["name"].as_str()?;
    let arguments = match &function["arguments"] {
        Value::Null => json!({}),
        Value::String(text) if text.trim().is_empty() => json!({}),
        Value::String(text) => serde_json::from_str(text)
            .ok()
            .filter(Value::is_object)
            .unwrap_or_else(|| function["arguments"].clone()),
        arguments => arguments.clone(),
    };
    let mut read = Map::new();
    if let Some(id) = call.get("id").filter(|id| id.is_string()) {
        read.insert("id".to_owned(), id.clone());
    }
    read.insert("type".to_owned(), "function".into());
    read.insert("function".to_owned(), json!({"name": name, "arguments": arguments}));
    Some(Value::Object(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: &Value) -> Result<Input, String> {
        turns("messages", messages)
            .and_then(|turns| input("messages", "messages", turns, None))
            .map_err(|fault| fault.reason)
    }

    fn response(prompt: &str, response: &str, chat: Option<Value>) -> Input {
        let chat = chat.map(|messages| {
            let Value::Array(messages) = messages else {
                panic!("{messages} is no list")
            };
            Box::new(Chat { messages, tools: None })
        });
        Input::Response {
            prompt: prompt.into(),
            response: response.into(),
            chat,
        }
    }

    fn calling(arguments: &Value) -> Value {
        json!([{"type": "function", "function": {"name": "weather", "arguments": arguments}}])
    }

    #[test]
    fn a_chat_is_kept_where_two_texts_do_not_say_it_all() {
        let two = json!([{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]);
        assert_eq!(read(&two), Ok(response("u", "a", None)));
        assert_eq!(read(&json!(two.to_string())), Ok(response("u", "a", None)), "as a text");
        let mut three = two.clone();
        three.as_array_mut().expect("a list").insert(0, turn("system", "s"));
        assert_eq!(read(&three), Ok(response("s\n\nu", "a", Some(three.clone()))));
        // What follows the last answer teaches nothing.
        let mut four = two.clone();
        four.as_array_mut().expect("a list").push(turn("user", "thanks"));
        assert_eq!(read(&four), Ok(response("u", "a", None)));
        // Both ways, the turns are those that were read.
        assert_eq!(read(&two).expect("reads").messages().to_vec(), messages("u", "a"));
        assert_eq!(json!(read(&three).expect("reads").messages()), three);
        assert_ne!(
            read(&three).expect("reads").identity(),
            response("s\n\nu", "a", None).identity()
        );
    }

    #[test]
    fn sharegpt_s_roles_are_those_of_openai() {
        let said = |from: &str, value: &str| json!({"from": from, "value": value});
        let call = r#"{"name": "weather", "arguments": {"city": "Bern"}}"#;
        let given = json!([
            said("human", "u"),
            said("function_call", call),
            said("observation", "sun"),
            said("gpt", "a"),
        ]);
        let wanted = json!([
            turn("user", "u"),
            {"role": "assistant", "content": null, "tool_calls": calling(&json!({"city": "Bern"}))},
            turn("tool", "sun"),
            turn("assistant", "a"),
        ]);
        let said_by_call = calling(&json!({"city": "Bern"})).to_string();
        assert_eq!(
            read(&given),
            Ok(response(&format!("u\n\n{said_by_call}\n\nsun"), "a", Some(wanted)))
        );
        // What is no call is said.
        let given = json!([said("human", "u"), said("function_call", "weather()")]);
        assert_eq!(read(&given), Ok(response("u", "weather()", None)));
        for (theirs, ours) in [
            ("model", "assistant"),
            ("chatgpt", "assistant"),
            ("bot", "assistant"),
            ("User", "user"),
        ] {
            let read = turns("messages", &json!([said(theirs, "x")])).expect("reads");
            assert_eq!(read, [turn(ours, "x")]);
        }
    }

    #[test]
    fn calls_of_tools_have_their_arguments_as_objects() {
        let wanted = |calls: Value| {
            let turns = json!([turn("user", "u"), {"role": "assistant", "content": null, "tool_calls": calls}]);
            response("u", &turns[1]["tool_calls"].to_string(), Some(turns))
        };
        let given = |calls: Value| read(&json!([turn("user", "u"), {"role": "assistant", "tool_calls": calls}]));
        let with_arguments =
            |arguments: Value| given(json!([{"function": {"name": "weather", "arguments": arguments}}]));
        let object = json!({"city": "Bern"});
        assert_eq!(with_arguments(object.clone()), Ok(wanted(calling(&object))));
        assert_eq!(with_arguments(json!(object.to_string())), Ok(wanted(calling(&object))));
        assert_eq!(with_arguments(json!("Bern")), Ok(wanted(calling(&json!("Bern")))));
        assert_eq!(with_arguments(json!("")), Ok(wanted(calling(&json!({})))));
        // A bare call, and the JSON of a list.
        let bare = json!([{"name": "weather", "arguments": object}]);
        assert_eq!(given(bare.clone()), Ok(wanted(calling(&object))));
        assert_eq!(given(json!(bare.to_string())), Ok(wanted(calling(&object))));
    }

    #[test]
    fn parts_and_properties_of_turns_are_read() {
        let given = json!([
            {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "image"}, {"type": "text", "text": "this?"}]},
            {"role": "assistant", "content": "A cat.", "tool_calls": null, "reasoning_content": "ears", "id": 7},
        ]);
        let wanted = json!([
            turn("user", "What is this?"),
            {"role": "assistant", "content": "A cat.", "reasoning_content": "ears"},
        ]);
        assert_eq!(read(&given), Ok(response("What is this?", "A cat.", Some(wanted))));
    }

    #[test]
    fn a_bad_turn_is_named_with_its_field() {
        let user = turn("user", "u");
        let complaint = |messages: Value| read(&messages).expect_err("is refused");
        insta::assert_snapshot!(complaint(json!([user, turn("assistant", " ")])), @"expected content or calls of tools in turn 2 of `messages`, found an empty text");
        insta::assert_snapshot!(complaint(json!([user, {"role": "assistant", "content": null}])), @"expected content or calls of tools in turn 2 of `messages`, found none");
        insta::assert_snapshot!(complaint(json!([user, {"role": "assistant", "tool_calls": [{"id": "1"}]}])), @"expected calls with the name of a function in turn 2 of `messages`, found a list");
        insta::assert_snapshot!(complaint(json!([user, {"role": "assistant", "content": {"a": 1}}])), @"expected a text as content in turn 2 of `messages`, found an object");
        insta::assert_snapshot!(complaint(json!([user, {"content": "a"}])), @"expected a role in turn 2 of `messages`, found none");
        insta::assert_snapshot!(complaint(json!([{"role": "user"}, turn("assistant", "a")])), @"expected content in turn 1 of `messages`, found none");
        insta::assert_snapshot!(complaint(json!(["u", "a"])), @"expected a role in turn 1 of `messages`, found none");
        insta::assert_snapshot!(complaint(json!([user])), @"expected a turn of the assistant in `messages`, found none");
        insta::assert_snapshot!(complaint(json!([turn("assistant", "a")])), @"expected something said before the assistant's last turn in `messages`, found none");
        insta::assert_snapshot!(complaint(json!("[{'role': 'user'}]")), @"expected a list of messages with role and content in `messages`, found a list as Python shows it");
        insta::assert_snapshot!(complaint(json!("hello")), @"expected a list of messages with role and content in `messages`, found a text");
    }

    #[test]
    fn tools_are_a_list_or_the_json_of_one() {
        let list = json!([{"name": "weather"}]);
        let read = |value: Value| tools("tools", &value).map_err(|fault| fault.reason);
        assert_eq!(read(list.clone()), Ok(Some(list.clone())));
        assert_eq!(read(json!(list.to_string())), Ok(Some(list.clone())));
        assert_eq!(read(json!([list[0].to_string()])), Ok(Some(list)));
        for none in [json!(null), json!(""), json!([]), json!("[]")] {
            assert_eq!(read(none), Ok(None));
        }
        insta::assert_snapshot!(read(json!("weather")).expect_err("is no list"), @"expected a list of tools in `tools`, found a text");
        insta::assert_snapshot!(read(json!([3])).expect_err("is no tool"), @"expected a list of tools in `tools`, found one with a number in it");
    }
}
