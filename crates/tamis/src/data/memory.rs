//! A data set from rows in memory.

use tamis_nn::Fingerprint;

use crate::{
    Error, Place, Result,
    data::{
        Compression, Dataset, Format, Input, LeakPolicy, Origin, SourceFile, TaskKind,
        fields::Target,
        labels::Label,
        read::{Row, Rows, assemble},
    },
};

/// What is right about a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The name of its label, for texts and pairs.
    Label(String),
    /// The number of the right choice, from 0.
    Choice(u32),
    /// The response that the row itself has.
    Response,
}

impl Dataset {
    /// A data set of rows in memory, each an input with its answer; rows are known by their place, from 1, in place of a line. Chosen
    /// rows cannot be exported from it: take them by [`Origin::record`], which is their place from 0.
    ///
    /// # Errors
    ///
    /// If a split has no rows, or rows of several tasks; if an answer does not fit its input; if a label stands in no training row; if
    /// training rows leak and the policy is to fail.
    ///
    /// ```
    /// use tamis::data::{Answer, Dataset, Input, LeakPolicy};
    ///
    /// let row = |text: &str, label: &str| (Input::Text(text.into()), Answer::Label(label.into()));
    /// let train = vec![row("good", "yes"), row("bad", "no"), row("fine", "yes")];
    /// let dataset = Dataset::from_rows(train, vec![row("poor", "no")], None, LeakPolicy::Drop)?;
    /// assert_eq!((dataset.pool.len(), dataset.task.labels.len()), (3, 2));
    /// # Ok::<(), tamis::Error>(())
    /// ```
    pub fn from_rows(
        train: Vec<(Input, Answer)>,
        validation: Vec<(Input, Answer)>,
        test: Option<Vec<(Input, Answer)>>,
        leaks: LeakPolicy,
    ) -> Result<Self> {
        let kind = train
            .first()
            .map_or(TaskKind::Classification, |(input, _)| kind_of(input));
        let split = |name: &str, rows| rows_of(name, kind, rows);
        assemble(
            kind,
            split("train", train)?,
            split("validation", validation)?,
            test.map(|test| split("test", test)).transpose()?,
            leaks,
        )
    }
}

fn kind_of(input: &Input) -> TaskKind {
    match input {
        Input::Text(_) => TaskKind::Classification,
        Input::Pair { .. } => TaskKind::Pair,
        Input::Choice { .. } => TaskKind::Choice,
        Input::Response { .. } => TaskKind::Response,
    }
}

/// The rows of a split, which must all be of this task.
fn rows_of(name: &str, kind: TaskKind, rows: Vec<(Input, Answer)>) -> Result<Rows> {
    let place = format!("{name} rows in memory");
    if rows.is_empty() {
        return Err(Error::data(Place::file(place), "at least one row", "none"));
    }
    let mut hash = Vec::with_capacity(rows.len());
    let mut read = Vec::with_capacity(rows.len());
    for (record, (input, answer)) in (0..).zip(rows) {
        let line = record + 1;
        if kind_of(&input) != kind {
            let found = format!("one of {}", kind_of(&input));
            return Err(Error::data(Place::line(place, line), format!("a row of {kind}"), found));
        }
        hash.push([input.identity().as_slice(), format!("{answer:?}").as_bytes()].concat());
        let target = match (&input, answer) {
            (Input::Choice { choices, .. }, Answer::Choice(choice)) if (choice as usize) < choices.len() => {
                Target::Choice(choice)
            }
            (Input::Text(_) | Input::Pair { .. }, Answer::Label(label)) => Target::Label(Label(label.into())),
            (Input::Response { .. }, Answer::Response) => Target::None,
            (_, answer) => {
                let expected = "a label for a text or a pair, the number of a choice for a question, the row's own response for a prompt";
                return Err(Error::data(Place::line(place, line), expected, format!("{answer:?}")));
            }
        };
        let origin = Origin { file: 0, line, record };
        read.push(Row { input, target, origin });
    }
    Ok(Rows {
        files: vec![SourceFile {
            path: place.into(),
            format: Format::JsonLines,
            compression: Compression::Plain,
            records: read.len() as u64,
            hash: Fingerprint::of(hash),
        }],
        rows: read,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, label: &str) -> (Input, Answer) {
        (Input::Text(text.into()), Answer::Label(label.into()))
    }

    fn question(choice: u32) -> (Input, Answer) {
        let choices = Box::new(["a".into(), "b".into()]);
        let question = "which?".into();
        (Input::Choice { question, choices }, Answer::Choice(choice))
    }

    fn dataset(train: Vec<(Input, Answer)>, validation: Vec<(Input, Answer)>) -> Result<Dataset> {
        Dataset::from_rows(train, validation, None, LeakPolicy::Drop)
    }

    #[test]
    fn rows_in_memory_are_checked_as_those_of_files_are() {
        let train = vec![text("one", "b"), text("two", "a"), text("three", "a")];
        let read = dataset(train.clone(), vec![text("two", "a")]).expect("a data set");
        assert_eq!(read.task.labels, ["a", "b"]);
        let targets: Vec<u32> = read.train.examples.iter().map(|example| example.target).collect();
        assert_eq!(
            (targets, read.pool),
            (vec![1, 0, 0], vec![0, 2]),
            "the second row leaks"
        );

        let wrong = [
            (
                train.clone(),
                vec![],
                "validation rows in memory: expected at least one row",
            ),
            (train.clone(), vec![text("x", "c")], "`c`"),
            (
                train.clone(),
                vec![question(0)],
                "line 1: expected a row of classification, found one of choice",
            ),
            (vec![question(2)], vec![question(0)], "found Choice(2)"),
        ];
        for (train, validation, said) in wrong {
            let error = dataset(train, validation).expect_err("wrong").to_string();
            assert!(error.contains(said), "{error}");
        }
        let prompt = |prompt: &str| {
            let (prompt, response) = (prompt.into(), "r".into());
            let chat = None;
            (Input::Response { prompt, response, chat }, Answer::Response)
        };
        let responses = dataset(vec![prompt("a"), prompt("b")], vec![prompt("b")]).expect("a data set");
        assert_eq!((responses.task.kind, responses.pool), (TaskKind::Response, vec![0]));
        // Another label, another fingerprint.
        let mut other = train.clone();
        other[0] = text("one", "a");
        let of = |train| dataset(train, vec![text("x", "a")]).expect("a data set").fingerprint;
        assert_ne!(
            of(train),
            of(vec![text("one", "a"), text("two", "b"), text("three", "a")])
        );
    }
}
