//! How the answers of questions are written: decided once for all files, from all their rows.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Error, Place, Result, data::Input};

/// How an answer names its choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerReading {
    /// By its letter: `B` is the second.
    Letter,
    /// By the choice's own text.
    Text,
    /// By its number, from 0.
    #[serde(rename = "from-0")]
    From0,
    /// By its number, from 1.
    #[serde(rename = "from-1")]
    From1,
    /// By a letter in some rows, by a number from 1 in others, as in ARC.
    LetterOrFrom1,
}

const READINGS: [AnswerReading; 5] = [
    AnswerReading::Letter,
    AnswerReading::Text,
    AnswerReading::From0,
    AnswerReading::From1,
    AnswerReading::LetterOrFrom1,
];

impl fmt::Display for AnswerReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Letter => "letters",
            Self::Text => "the choices' texts",
            Self::From0 => "numbers from 0",
            Self::From1 => "numbers from 1",
            Self::LetterOrFrom1 => "letters, or numbers from 1",
        })
    }
}

impl AnswerReading {
    /// The one that a user names behind a field: `answerKey:from-1`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "letter" => Self::Letter,
            "text" => Self::Text,
            "from-0" => Self::From0,
            "from-1" => Self::From1,
            _ => return None,
        })
    }

    /// How a user names it.
    fn name(self) -> &'static str {
        match self {
            Self::Letter => "letter",
            Self::Text => "text",
            Self::From0 => "from-0",
            Self::From1 | Self::LetterOrFrom1 => "from-1",
        }
    }

    /// The number of the choice that an answer names, from 0.
    pub(crate) fn choice(self, answer: &RawAnswer, choices: &[Box<str>]) -> Option<u32> {
        let RawAnswer { text: answer, is_index } = answer;
        let number = || answer.parse::<i64>().ok();
        let index = match self {
            Self::Letter => letter(answer),
            Self::Text if *is_index => None,
            Self::Text => {
                let mut same = (0..).zip(choices).filter(|(_, choice)| choice.trim() == &**answer);
                match (same.next(), same.next()) {
                    (Some((index, _)), None) => Some(index),
                    _ => None,
                }
            }
            Self::From0 => number(),
            Self::From1 => number().and_then(|number| number.checked_sub(1)),
            Self::LetterOrFrom1 => letter(answer).or_else(|| number()?.checked_sub(1)),
        };
        index
            .and_then(|index| u32::try_from(index).ok())
            .filter(|index| (*index as usize) < choices.len())
    }
}

/// The place of a letter in the alphabet, from 0; it may stand in brackets, or before a full stop.
fn letter(answer: &str) -> Option<i64> {
    let bare = answer.trim_start_matches('(').trim_end_matches([')', '.', ':']);
    match bare.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => Some(i64::from(letter.to_ascii_uppercase() - b'A')),
        _ => None,
    }
}

/// An answer as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawAnswer {
    pub(crate) text: Box<str>,
    /// Whether it is a number beside choices that are texts, and so none of them.
    pub(crate) is_index: bool,
}

/// An answer that is to be read, its choices, and where it stands.
pub(crate) struct AnswerRow<'a> {
    pub(crate) answer: &'a RawAnswer,
    pub(crate) input: &'a Input,
    pub(crate) file: &'a Path,
    pub(crate) line: u64,
}

impl AnswerRow<'_> {
    fn place(&self) -> Place {
        Place::line(self.file, self.line)
    }

    pub(crate) fn choices(&self) -> &[Box<str>] {
        match self.input {
            Input::Choice { choices, .. } => choices,
            _ => &[],
        }
    }
}

/// The reading that fits all answers, less a share of bad ones that is borne.
///
/// Where several fit, they must name the same choices.
///
/// # Errors
///
/// If none fits, or several fit and differ.
pub(crate) fn decide(rows: &[AnswerRow<'_>], max_bad: f64) -> Result<AnswerReading> {
    let readable = |row: &&AnswerRow<'_>| {
        READINGS
            .iter()
            .any(|reading| reading.choice(row.answer, row.choices()).is_some())
    };
    let readable: Vec<&AnswerRow<'_>> = rows.iter().filter(readable).collect();
    let Some(first) = rows.first() else {
        return Ok(AnswerReading::Letter);
    };
    let counts = READINGS.map(|reading| {
        let fits = |row: &&&AnswerRow<'_>| reading.choice(row.answer, row.choices()).is_some();
        readable.iter().filter(fits).count()
    });
    let most = counts.iter().copied().max().unwrap_or(0);
    if most == 0 || ((readable.len() - most) as f64) > max_bad * rows.len() as f64 {
        let odd = readable.iter().find(|row| {
            let best = (0..READINGS.len()).find(|&i| counts[i] == most).unwrap_or(0);
            READINGS[best].choice(row.answer, row.choices()).is_none()
        });
        let (one, other) = (first, odd.copied().unwrap_or(first));
        let expected = "answers that are all written alike: letters, numbers from 0 or from 1, or the choices' texts";
        let found = if std::ptr::eq(one, other) {
            format!("`{}`", one.answer.text)
        } else {
            format!("`{}` beside `{}` ({})", other.answer.text, one.answer.text, one.place())
        };
        return Err(Error::data(other.place(), expected, found)
            .with_hint("write them alike, or say how they are to be read: `field answer=<name>:letter`, `:text`, `:from-0` or `:from-1`"));
    }
    let fitting: Vec<AnswerReading> = (0..READINGS.len())
        .filter(|&i| counts[i] == most)
        .map(|i| READINGS[i])
        .collect();
    // A reading that takes in another and names the same choices says no more.
    let reading = fitting[0];
    for row in &readable {
        let (choices, chosen) = (row.choices(), reading.choice(row.answer, row.choices()));
        let other = fitting.iter().find(|other| other.choice(row.answer, choices) != chosen);
        if let Some(other) = other {
            return Err(ambiguous(row, reading, *other));
        }
    }
    Ok(reading)
}

fn ambiguous(row: &AnswerRow<'_>, one: AnswerReading, other: AnswerReading) -> Error {
    let choice = |reading: AnswerReading| {
        let chosen = reading.choice(row.answer, row.choices());
        chosen.map_or("no choice".to_owned(), |chosen| format!("choice {}", chosen + 1))
    };
    Error::data(
        row.place(),
        "answers that can be read in one way",
        format!(
            "`{}`, which is {} if answers are {one}, and {} if they are {other}; no row tells which",
            row.answer.text,
            choice(one),
            choice(other)
        ),
    )
    .with_hint(format!(
        "say which: `field answer=<name>:{}`, or `:{}`",
        one.name(),
        other.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(answers: &[&str], choices: &[&str]) -> Result<AnswerReading> {
        let input = Input::Choice {
            question: "q".into(),
            choices: choices.iter().map(|choice| (*choice).into()).collect(),
        };
        let answers: Vec<RawAnswer> = answers
            .iter()
            .map(|answer| RawAnswer {
                text: (*answer).into(),
                is_index: false,
            })
            .collect();
        let rows: Vec<AnswerRow<'_>> = (1..)
            .zip(&answers)
            .map(|(line, answer)| AnswerRow {
                answer,
                input: &input,
                file: Path::new("t.jsonl"),
                line,
            })
            .collect();
        decide(&rows, 0.0)
    }

    #[test]
    fn all_rows_together_tell_how_answers_are_written() {
        let choices = ["red", "blue", "green"];
        for (answers, want) in [
            (&["A", "c", "(B)"][..], AnswerReading::Letter),
            (&["red", "green"], AnswerReading::Text),
            (&["0", "1"], AnswerReading::From0),
            (&["1", "3", "2"], AnswerReading::From1),
            (&["A", "2", "B", "3"], AnswerReading::LetterOrFrom1),
        ] {
            assert_eq!(decided(answers, &choices).expect("is clear"), want, "{answers:?}");
        }
        assert_eq!(decided(&["2", "3", "2"], &["1", "2", "3", "x"]).ok(), None);
        assert_eq!(decided(&["0", "2"], &["0", "1", "2"]).ok(), Some(AnswerReading::Text));
        // Both readings name the same choices.
        assert_eq!(decided(&["A", "B"], &["A", "B"]).ok(), Some(AnswerReading::Letter));
    }

    #[test]
    fn answers_that_fit_several_readings_or_none_are_refused() {
        let said = |answers: &[&str]| {
            let error = decided(answers, &["red", "blue", "green"]).expect_err("is not clear");
            format!("{error}\nhint: {}", error.hint().unwrap_or_default())
        };
        insta::assert_snapshot!(said(&["1", "2"]), @r"
        t.jsonl, line 1: expected answers that can be read in one way, found `1`, which is choice 2 if answers are numbers from 0, and choice 1 if they are numbers from 1; no row tells which
        hint: say which: `field answer=<name>:from-0`, or `:from-1`
        ");
        insta::assert_snapshot!(said(&["A", "0"]), @r"
        t.jsonl, line 2: expected answers that are all written alike: letters, numbers from 0 or from 1, or the choices' texts, found `0` beside `A` (t.jsonl, line 1)
        hint: write them alike, or say how they are to be read: `field answer=<name>:letter`, `:text`, `:from-0` or `:from-1`
        ");
        insta::assert_snapshot!(said(&["black"]), @r"
        t.jsonl, line 1: expected answers that are all written alike: letters, numbers from 0 or from 1, or the choices' texts, found `black`
        hint: write them alike, or say how they are to be read: `field answer=<name>:letter`, `:text`, `:from-0` or `:from-1`
        ");
    }
}
