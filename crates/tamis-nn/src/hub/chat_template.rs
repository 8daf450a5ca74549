//! Conversations as a model reads them: its chat template, rendered as transformers' `apply_chat_template` renders it.
//!
//! A template is Jinja, in the settings that transformers gives it: blocks are trimmed, values are shown as Python shows them, and
//! `tojson` is `json.dumps`. What is learned of a conversation is found by rendering its beginnings, as TRL does it: what a turn of
//! the assistant adds to the prompt before it.
//!
//! We differ in two ways. `strftime_now` gives one date whenever it is asked, 26 July 2024, which Llama's templates fall back to: the
//! clock would make other tokens of the same rows tomorrow.
//! Of several templates the one named `default` is taken even where there are tools.

mod python;

use std::{ops::Range, path::Path};

use minijinja::{
    Environment, ErrorKind, Output, State, UndefinedBehavior, context,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde, Value, ValueKind},
};
use serde_json::Value as Json;

use crate::{
    Error, Place, Result,
    hub::files::{ModelFiles, read_json},
};

/// What the template is called in its own errors.
const NAME: &str = "chat_template";

/// How many instructions a rendering may take; a long conversation takes some ten thousand.
const FUEL: u64 = 2_000_000;

/// The end of what a model thinks before it answers; many templates leave it out of earlier turns.
const END_OF_THINKING: &str = "</think>";

/// The form of [`ChatTemplate::plain`].
const PLAIN: &str = r#"
{%- if tools %}{{- "Tools: " }}{{- tools | tojson }}{{- "\n\n" }}{%- endif %}
{%- for message in messages %}
    {%- if not loop.first %}{{- "\n\n" }}{%- endif %}
    {{- message.role | capitalize + ":" }}
    {%- if message.content %}{{- " " + message.content }}{%- endif %}
    {%- if message.tool_calls %}{{- " " }}{{- message.tool_calls | tojson }}{%- endif %}
    {%- if message.role == "assistant" %}{{- eos_token }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- "\n\nAssistant:" }}{%- endif %}"#;

/// 26 July 2024 in seconds since 1970, UTC.
const TODAY: u64 = 1_721_952_000;

/// How a model writes conversations.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    eos: Option<String>,
    plain: bool,
}

/// What a labelled row asks a language model: a Jinja template of the user's.
#[derive(Debug, Clone)]
pub struct PromptTemplate(ChatTemplate);

impl PromptTemplate {
    /// Reads a template from a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read or parsed.
    pub fn read(path: &Path) -> Result<Self> {
        let source = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        let template = ChatTemplate::parse(&source, []);
        template.map(Self).map_err(|error| mistake(path, &error))
    }

    /// The prompt of a row with these fields.
    ///
    /// # Errors
    ///
    /// If the template cannot be followed, in its own words.
    pub fn render(&self, fields: &Json) -> Result<String, String> {
        let rendered = (self.0.environment.get_template(NAME)).and_then(|template| template.render(Serde(fields)));
        rendered.map_err(|error| words_of(&error))
    }
}

fn mistake(path: &Path, error: &minijinja::Error) -> Error {
    Error::data(Place::file(path), "a template in Jinja", format!("a mistake ({error})"))
}

/// A conversation as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Everything, with special tokens written out.
    pub text: String,
    /// Byte ranges of `text` that the assistant says, in order, each with its end of turn: what is learned.
    pub learned: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// The template of a model: `chat_template.jinja` beside its tokenizer, else `chat_template` in `tokenizer_config.json`; `None`
    /// if it has neither. `in_folder` gives a file its place in the model.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, the template cannot be parsed, or there are several and none is named `default`.
    pub fn read(files: &ModelFiles, in_folder: impl Fn(&str) -> String) -> Result<Option<Self>> {
        let config_path = files.find(&in_folder("tokenizer_config.json"))?;
        let config = config_path.as_deref().map(read_json).transpose()?.unwrap_or_default();
        let special = files.json(&in_folder("special_tokens_map.json"))?.unwrap_or_default();
        let (path, source) = match (files.find(&in_folder("chat_template.jinja"))?, config_path) {
            (Some(path), _) => {
                let source = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
                (path, source)
            }
            (None, Some(path)) => match default_of(&config["chat_template"]) {
                Ok(Some(source)) => (path, source.to_owned()),
                Ok(None) => return Ok(None),
                Err(found) => {
                    let expected = "one chat_template, or one of them named `default`";
                    return Err(Error::data(Place::file(path), expected, found));
                }
            },
            (None, None) => return Ok(None),
        };
        let tokens = special_tokens(&special).chain(special_tokens(&config));
        let template = Self::parse(&source, tokens);
        template.map(Some).map_err(|error| mistake(&path, &error))
    }

    /// A plain form for a model that has none: each turn is its role with a capital letter, a colon, a space and what it says; blank
    /// lines stand between turns, and `eos` directly behind each turn of the assistant.
    ///
    /// ```text
    /// System: Be brief.
    ///
    /// User: What is the capital of France?
    ///
    /// Assistant: Paris.</s>
    /// ```
    ///
    /// Tools stand before the first turn, as `Tools: ` and their JSON; calls of tools stand as JSON behind what the turn says. The
    /// generation prompt is `Assistant:` without a space.
    pub fn plain(eos: &str) -> Self {
        let template = Self::parse(PLAIN, [("eos_token".to_owned(), eos.into())])
            .unwrap_or_else(|error| unreachable!("the plain form is a template: {error}"));
        Self {
            plain: true,
            ..template
        }
    }

    /// Whether it is the plain form, around which the tokenizer puts what it puts around texts: templates write that themselves.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    fn parse(
        source: &str,
        special_tokens: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(show);
        environment.add_filter("tojson", |value: &Value, arguments: Kwargs| {
            python::to_json(value, &arguments)
        });
        environment.add_filter("string", |value: &Value| python::text(value));
        // To Python, a text and a dictionary are sequences too.
        environment.add_test("sequence", |value: &Value| {
            matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
        });
        environment.add_function("raise_exception", |text: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, "an exception").with_source(Raised(text)))
        });
        environment.add_function("strftime_now", |format: &str| python::date(TODAY, format));
        let mut eos = None;
        for (name, token) in special_tokens {
            if name == "eos_token" {
                eos = token.as_str().map(ToOwned::to_owned);
            }
            environment.add_global(name, token);
        }
        environment.add_template_owned(NAME, without_generation_tags(source))?;
        Ok(Self {
            environment,
            eos,
            plain: false,
        })
    }

    /// A conversation as transformers' `apply_chat_template(tokenize=False)` gives it.
    ///
    /// # Errors
    ///
    /// If the template refuses the conversation, in its own words, or cannot be followed.
    pub fn render(
        &self,
        messages: &[Json],
        tools: Option<&Json>,
        add_generation_prompt: bool,
    ) -> Result<String, String> {
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            template.render(context! {
                messages => Value::from(Serde(messages)),
                tools => Value::from(Serde(tools)),
                documents => Value::from(()),
                add_generation_prompt,
            })
        });
        rendered.map_err(|error| words_of(&error))
    }

    /// A conversation and what is learned of it: all that the assistant says, calls of tools and ends of turns with it.
    ///
    /// # Errors
    ///
    /// If the template refuses the conversation, no turn is the assistant's, or what one says does not show.
    pub fn conversation(&self, messages: &[Json], tools: Option<&Json>) -> Result<Rendered, String> {
        let text = self.render(messages, tools, false)?;
        let mut learned: Vec<Range<usize>> = Vec::new();
        for (turn, _) in messages
            .iter()
            .enumerate()
            .filter(|(_, message)| message["role"] == "assistant")
        {
            let before = match self.render(&messages[..turn], tools, true) {
                // Many templates look at the first turn, and without any there is nothing to look at.
                Err(_) if turn == 0 => String::new(),
                before => before?,
            };
            let through = self.render(&messages[..=turn], tools, false).unwrap_or_default();
            let base = || self.render(&messages[..turn], tools, false).unwrap_or_default();
            let beginning = Beginning { before, through };
            let from = learned.last().map_or(0, |range| range.end);
            let said = messages[turn]["content"].as_str().unwrap_or_default();
            let range = beginning
                .added_to(&text, from)
                .or_else(|| beginning.shown_in(&text, &base(), from, said, self.eos.as_deref()))
                .ok_or_else(|| {
                    format!(
                        "the template does not show what the assistant says in turn {}",
                        turn + 1
                    )
                })?;
            learned.push(range);
        }
        if learned.is_empty() {
            return Err("no turn of the conversation is the assistant's".to_owned());
        }
        Ok(Rendered { text, learned })
    }
}

/// The beginning of a conversation, rendered with the prompt for a turn of the assistant, and with the turn itself.
struct Beginning {
    before: String,
    through: String,
}

impl Beginning {
    /// What the turn adds, where the template only ever adds.
    fn added_to(&self, text: &str, from: usize) -> Option<Range<usize>> {
        let range = self.before.len()..self.through.len();
        let only_adds = self.begins(&self.through) && text.starts_with(&self.through);
        (only_adds && from <= range.start && !range.is_empty()).then_some(range)
    }

    /// Where the turn stands in a text whose template rewrites earlier turns, or prompts with more than the turn has. `base` is the
    /// beginning without the prompt, `said` the turn's content.
    fn shown_in(&self, text: &str, base: &str, from: usize, said: &str, eos: Option<&str>) -> Option<Range<usize>> {
        let from = from.max(self.shared_with(text, base));
        // The whole turn, as it is at a conversation's end.
        let whole = &self.through[self.shared_with(&self.through, base)..];
        if !self.before.is_empty()
            && !whole.trim().is_empty()
            && let Some(at) = text[from..].find(whole)
        {
            return Some(from + at..from + at + whole.len());
        }
        // What it says, perhaps without what was thought before it, and the end of turn as it stands at a conversation's end.
        let answer = said.rsplit(END_OF_THINKING).next().unwrap_or_default();
        let (shown, at) = [said, answer]
            .map(str::trim)
            .into_iter()
            .filter(|shown| !shown.is_empty())
            .find_map(|shown| Some((shown, from + text[from..].find(shown)?)))?;
        let start = if self.begins(text) { from } else { at };
        let end = at + shown.len();
        let tail = self.through.rsplit_once(shown).map_or("", |(_, tail)| tail);
        let tail = [tail, eos.unwrap_or_default()]
            .into_iter()
            .find(|tail| text[end..].starts_with(tail));
        Some(start..end + tail.map_or(0, str::len))
    }

    /// Whether a text goes on where the prompt ends.
    fn begins(&self, text: &str) -> bool {
        !self.before.is_empty() && text.starts_with(&self.before)
    }

    /// How much of a text is also the prompt's beginning. A tag in which the prompt and the text part belongs to neither.
    fn shared_with(&self, text: &str, base: &str) -> usize {
        let alike = self.before.chars().zip(text.chars()).take_while(|(a, b)| a == b);
        let shared: usize = alike.map(|(char, _)| char.len_utf8()).sum();
        if shared == self.before.len() {
            return shared;
        }
        let base = base.len().min(shared);
        let prompt = self.before.get(base..shared).unwrap_or_default();
        match prompt.rfind('<') {
            Some(open) if !prompt[open..].contains('>') => base + open,
            _ => shared,
        }
    }
}

/// What a template said by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// The words of a template that refuses a conversation, else what is wrong with it.
fn words_of(error: &minijinja::Error) -> String {
    let mut causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    match causes.find_map(|cause| cause.downcast_ref::<Raised>()) {
        Some(Raised(words)) => words.clone(),
        None => error.to_string(),
    }
}

fn show(out: &mut Output, _: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    match value.as_str() {
        Some(text) => out.write_str(text)?,
        None => out.write_str(&python::text(value)?)?,
    }
    Ok(())
}

/// The template that `chat_template` of `tokenizer_config.json` gives, or what it gives in its place.
fn default_of(value: &Json) -> Result<Option<&str>, String> {
    match value {
        Json::Null => Ok(None),
        Json::String(source) => Ok(Some(source)),
        Json::Array(templates) => {
            let named_default = templates.iter().find(|template| template["name"] == "default");
            let only = templates.first().filter(|_| templates.len() == 1);
            let source = named_default
                .or(only)
                .and_then(|template| template["template"].as_str());
            source
                .map(Some)
                .ok_or_else(|| format!("{} without that name", templates.len()))
        }
        other => Err(other.to_string()),
    }
}

/// The special tokens of `tokenizer_config.json` or `special_tokens_map.json`, by the names that templates know them by.
fn special_tokens(config: &Json) -> impl Iterator<Item = (String, Value)> {
    let entries = config.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| {
        let value = match value {
            Json::Array(tokens) if name == "additional_special_tokens" => {
                tokens.iter().filter_map(written).map(Value::from).collect()
            }
            token if name.ends_with("_token") => Value::from(written(token)?),
            _ => return None,
        };
        Some((name.clone(), value))
    })
}

/// How a token is written, which stands there alone or among its properties.
fn written(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// The template with `{% generation %}`, by which transformers marks what is learned, as a block that changes nothing.
fn without_generation_tags(source: &str) -> String {
    let mut pieces = source.split("{%");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str("{%");
        let tag = piece.split("%}").next().unwrap_or_default();
        let word = tag.trim_matches(|char: char| matches!(char, '-' | '+') || char.is_whitespace());
        match word {
            "generation" => out.push_str(&piece.replacen(word, "if true", 1)),
            "endgeneration" => out.push_str(&piece.replacen(word, "endif", 1)),
            _ => out.push_str(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests;
