//! From files to a [`Dataset`]: rows are read, their task told, bad rows set aside, answers and labels read, leaks found.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use rayon::prelude::*;
use tamis_nn::{Fingerprint, Monitor};

use crate::{
    Error, Place, Result,
    data::{
        DataSettings, Dataset, Example, Input, LeakPolicy, Leaks, Origin, RowId, SourceFile, Split, Task, TaskKind,
        answers::{self, AnswerReading, AnswerRow},
        fields::{Reading, Target, check_names},
        files::{self, DataFile},
        labels::{self, Label, Labels, Spelling},
        rejects::{Fault, FaultKind, Reject, check_split, rejects_of, too_many_bad},
        source::{Record, columns, names_of, read_records},
    },
};

/// In how many first records of a file a task is looked for.
const PROBED_RECORDS: usize = 100;

/// Reads and checks all files.
///
/// # Errors
///
/// If a file cannot be read, holds no task that is known, or too many bad rows; if splits do not fit each other; if
/// training rows leak and the policy is to fail. A single bad row is no error: it is listed in `Dataset::rejects`.
pub fn read(settings: &DataSettings, monitor: &dyn Monitor) -> Result<Dataset> {
    check(settings)?;
    let train = files::resolve(&settings.train)?;
    let validation = files::resolve(&settings.validation)?;
    let test = files::resolve(&settings.test)?;
    files::check_alike(&train)?;
    let mut reader = Reader {
        settings,
        monitor,
        reading: None,
        unseen: Vec::new(),
        rejects: Vec::new(),
        rows: BTreeMap::new(),
        labels: HashSet::new(),
    };
    let rows = reader.split(&train)?;
    reader.check_unseen(&rows.files)?;
    let mut splits = vec![rows, reader.split(&validation)?];
    if !test.is_empty() {
        splits.push(reader.split(&test)?);
    }
    reader.check_bad()?;
    let answers = reader.read_answers(&mut splits)?;
    reader.check_bad()?;
    let kind = reader.reading.as_ref().map_or(TaskKind::Classification, Reading::kind);
    let mut splits = splits.into_iter();
    let mut next = || {
        splits
            .next()
            .unwrap_or_else(|| unreachable!("a training and a validation split"))
    };
    let (train, validation) = (next(), next());
    let dataset = assemble(kind, train, validation, splits.next(), settings.leaks)?;
    let splits = [Some(&dataset.train), Some(&dataset.validation), dataset.test.as_ref()];
    Ok(Dataset {
        fingerprint: fingerprint(settings, &splits),
        rejects: reader.rejects,
        answers,
        ..dataset
    })
}

/// Numbers the labels and finds leaks; nothing is rejected, and the fingerprint is that of the files alone.
pub(crate) fn assemble(
    kind: TaskKind,
    mut train: Rows,
    mut validation: Rows,
    mut test: Option<Rows>,
    leaks: LeakPolicy,
) -> Result<Dataset> {
    let place = Place::file(&train.files[0].path);
    let spelling = Spelling::decide(
        &[Some(&train), Some(&validation), test.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(Rows::labels)
            .collect::<Vec<_>>(),
    )?;
    for rows in [Some(&mut train), Some(&mut validation), test.as_mut()]
        .into_iter()
        .flatten()
    {
        rows.respell(spelling);
    }
    let labels = labels::in_order(train.rows.iter().filter_map(|row| match &row.target {
        Target::Label(label) => Some(&*label.0),
        _ => None,
    }));
    if matches!(kind, TaskKind::Classification | TaskKind::Pair) && labels.len() < 2 {
        return Err(Error::data(
            place,
            "training rows of at least two labels",
            labels.first().map_or(String::new(), |label| format!("only `{label}`")),
        )
        .with_hint(
            "one label leaves nothing to learn; if the labels stand in another field, name it: `field label=<name>`",
        ));
    }
    let train = train.numbered(&labels, "training")?;
    let validation = validation.numbered(&labels, "validation")?;
    let test = test.map(|test| test.numbered(&labels, "test")).transpose()?;
    let Compared {
        pool,
        duplicates,
        leaks,
        in_test,
    } = compare(&train, &validation, test.as_ref(), leaks)?;
    if pool.is_empty() {
        return Err(Error::data(
            place,
            "at least one row that is not also in validation or test",
            format!("{} rows that all are", train.examples.len()),
        )
        .with_hint(
            "give other training rows, or choose among these with `leaks keep`: what they score then flatters",
        ));
    }
    let splits = [Some(&train), Some(&validation), test.as_ref()];
    let files = splits.into_iter().flatten().flat_map(|split| &split.files);
    Ok(Dataset {
        fingerprint: Fingerprint::of(files.map(|file| file.hash.as_str())),
        task: Task { kind, labels },
        train,
        validation,
        test,
        pool,
        prefiltered: None,
        duplicates,
        leaks,
        in_test,
        answers: None,
        rejects: Vec::new(),
    })
}

fn check(settings: &DataSettings) -> Result<()> {
    check_names(&settings.field, settings.task)?;
    if !(0.0..=1.0).contains(&settings.max_bad) {
        return Err(Error::setting(
            "max_bad",
            "a share from 0 to 1",
            settings.max_bad.to_string(),
        ));
    }
    for (name, files) in [("train", &settings.train), ("validation", &settings.validation)] {
        if files.is_empty() {
            let example = format!("{name} {name}.jsonl");
            return Err(
                Error::setting(name, "at least one file", "none").with_hint(format!("for instance `{example}`"))
            );
        }
    }
    Ok(())
}

/// A row whose label has no number yet.
pub(crate) struct Row {
    pub(crate) input: Input,
    pub(crate) target: Target,
    pub(crate) origin: Origin,
}

/// The rows of a split, and the files that they came from.
pub(crate) struct Rows {
    pub(crate) files: Vec<SourceFile>,
    pub(crate) rows: Vec<Row>,
}

impl Rows {
    /// The labels of each file as they stand there.
    fn labels(&self) -> impl Iterator<Item = Labels<'_>> {
        let mut counts: Vec<BTreeMap<&str, u64>> = vec![BTreeMap::new(); self.files.len()];
        for row in &self.rows {
            if let Target::Label(label) = &row.target {
                *counts[row.origin.file as usize].entry(&label.0).or_default() += 1;
            }
        }
        self.files.iter().zip(counts).map(|(file, counts)| Labels {
            place: Place::file(&file.path),
            counts,
        })
    }

    /// Writes the labels in this spelling.
    fn respell(&mut self, spelling: Spelling) {
        let mut respelled: HashMap<Arc<str>, Arc<str>> = HashMap::new();
        for row in &mut self.rows {
            if let Target::Label(label) = &mut row.target {
                let new = respelled.entry(Arc::clone(&label.0));
                let new = new.or_insert_with(|| spelling.of(label).into());
                label.0 = Arc::clone(new);
            }
        }
    }

    /// The examples, with the number of each label in place of its name.
    fn numbered(self, labels: &[String], split: &str) -> Result<Split> {
        let numbers: HashMap<&str, u32> = labels.iter().map(String::as_str).zip(0..).collect();
        let is_unknown = |label: &Label| !numbers.contains_key(&*label.0);
        let unknown = self.rows.iter().find_map(|row| match &row.target {
            Target::Label(label) if is_unknown(label) => Some(row.origin),
            _ => None,
        });
        if let Some(Origin { file, line, .. }) = unknown {
            let mut of_file = self
                .labels()
                .nth(file as usize)
                .unwrap_or_else(|| unreachable!("a file of the row"));
            of_file.place = Place::line(&self.files[file as usize].path, line);
            of_file.counts.retain(|label, _| !numbers.contains_key(label));
            return Err(labels::unknown_to_training(&of_file, labels, split));
        }
        let example = |Row { input, target, origin }| Example {
            target: match target {
                Target::Label(label) => numbers[&*label.0],
                Target::Choice(choice) => choice,
                Target::Answer(_) | Target::None => 0,
            },
            input,
            origin,
        };
        Ok(Split {
            examples: self.rows.into_iter().map(example).collect(),
            files: self.files,
        })
    }
}

struct Reader<'a> {
    settings: &'a DataSettings,
    monitor: &'a dyn Monitor,
    reading: Option<Reading>,
    /// Fields that the user named, that a row need not have, and that none had so far; with their roles.
    unseen: Vec<(&'static str, String)>,
    rejects: Vec<Reject>,
    /// How many rows each file has, bad ones with them.
    rows: BTreeMap<PathBuf, u64>,
    /// Every label that was met.
    labels: HashSet<Arc<str>>,
}

/// An example, or why the row is none.
type Parsed = Result<(Input, Target), Fault>;

impl Reader<'_> {
    fn split(&mut self, data_files: &[DataFile]) -> Result<Rows> {
        let mut files = Vec::with_capacity(data_files.len());
        let mut rows = Vec::new();
        for (number, file) in (0..).zip(data_files) {
            let before = rows.len();
            let rejected = self.rejects.len();
            let mut met = false;
            files.push(read_records(&file.path, file.format, file.compression, &mut |block| {
                if !met {
                    self.meet(file, &block)?;
                    met = self.reading.is_some();
                }
                self.block(block, &file.path, number, &mut rows)
            })?);
            if rows.len() == before && self.rejects.len() == rejected {
                return Err(Error::data(Place::file(&file.path), "at least one row", "none"));
            }
        }
        if rows.is_empty() {
            // Every row is bad: the list of the first five says why.
            return Err(self.too_many_bad());
        }
        let split = Rows { files, rows };
        self.check_bad_of(&split)?;
        Ok(split)
    }

    /// Looks at the first records of a file: which task they are of, and whether they have the fields that it takes.
    fn meet(&mut self, file: &DataFile, block: &[Record]) -> Result<()> {
        if self.reading.is_none() {
            self.reading = self.detect(block, &file.path)?;
            let optional = self.reading.iter().flat_map(Reading::optional_fields);
            self.unseen = optional.map(|(role, field)| (role, field.to_owned())).collect();
        }
        let Some(reading) = &self.reading else { return Ok(()) };
        let good = block
            .iter()
            .take(PROBED_RECORDS)
            .filter_map(|record| record.fields.as_ref().ok());
        let good: Vec<_> = good.collect();
        let lacks = |name: &str| good.iter().all(|fields| !fields.contains_key(name));
        if let (Some(name), Some(fields)) = (reading.fields().find(|name| lacks(name)), good.first()) {
            return Err(Error::data(
                Place::file(&file.path),
                format!("a field `{name}`, as the first training file has"),
                names_of(fields),
            )
            .with_hint(FaultKind::Fields.way_out()));
        }
        if file.format.is_columnar() {
            let unreadable = columns::unreadable(&file.path, file.format)?;
            let column = reading.fields().find_map(|name| Some((name, unreadable.get(name)?)));
            if let Some((name, column)) = column {
                return Err(Error::data(
                    Place::file(&file.path),
                    format!("a column `{name}` of texts, whole numbers or lists"),
                    column.found,
                )
                .with_hint(column.way_out));
            }
        }
        Ok(())
    }

    fn block(&mut self, block: Vec<Record>, path: &Path, file: u32, rows: &mut Vec<Row>) -> Result<()> {
        self.monitor.proceed()?;
        let has = |record: &Record, field: &str| record.fields.as_ref().is_ok_and(|fields| fields.contains_key(field));
        self.unseen
            .retain(|(_, field)| !block.iter().any(|record| has(record, field)));
        let reading = self.reading.as_ref();
        let read: Vec<(Origin, Parsed)> = block
            .into_par_iter()
            .map(|Record { line, record, fields }| {
                let example = fields.and_then(|fields| match reading {
                    Some(reading) => reading.example(&fields),
                    None => Err(Fault::other("expected a row of a known task, found none before it")),
                });
                (Origin { file, line, record }, example)
            })
            .collect();
        *self.rows.entry(path.to_path_buf()).or_default() += read.len() as u64;
        self.monitor.advance(read.len() as u64);
        for (origin, example) in read {
            match example {
                Ok((input, mut target)) => {
                    if let Target::Label(label) = &mut target {
                        self.share(label);
                    }
                    rows.push(Row { input, target, origin });
                }
                Err(fault) => self.reject(path, origin.line, fault),
            }
        }
        Ok(())
    }

    /// Once the training rows are read: a field that none of them has is not what the user meant.
    fn check_unseen(&self, files: &[SourceFile]) -> Result<()> {
        match (self.unseen.first(), files.first()) {
            (Some((role, field)), Some(file)) => {
                let expected = format!("a field `{field}` in some row");
                Err(
                    Error::data(Place::file(&file.path), expected, "none").with_hint(format!(
                        "name a field that rows have with `field {role}=<name>`, or leave it out"
                    )),
                )
            }
            _ => Ok(()),
        }
    }

    /// Makes a label that was met before the same piece of memory.
    fn share(&mut self, label: &mut Label) {
        match self.labels.get(&label.0) {
            Some(known) => label.0 = Arc::clone(known),
            None => _ = self.labels.insert(Arc::clone(&label.0)),
        }
    }

    fn reject(&mut self, path: &Path, line: u64, fault: Fault) {
        self.rejects.push(Reject {
            file: path.to_path_buf(),
            line,
            reason: fault.reason,
            kind: fault.kind,
        });
    }

    /// The reading that fits the first record that any fits; `None` where no record could even be parsed.
    fn detect(&self, block: &[Record], path: &Path) -> Result<Option<Reading>> {
        let mut lacking = None;
        for record in block.iter().take(PROBED_RECORDS) {
            let Ok(fields) = &record.fields else { continue };
            match Reading::detect(fields, &self.settings.field, self.settings.task) {
                Ok(reading) => return Ok(Some(reading)),
                Err(missing) => lacking = lacking.or(Some((record, fields, missing))),
            }
        }
        let Some((record, fields, missing)) = lacking else {
            return Ok(None);
        };
        let rows_within = fields.iter().find(|(_, value)| {
            value
                .as_array()
                .is_some_and(|items| items.iter().any(serde_json::Value::is_object))
        });
        let hint = match rows_within {
            Some((name, _)) => {
                format!("write the rows of `{name}` one a line: `jq -c '.{name}[]' old.json > new.jsonl`")
            }
            None => format!(
                "name the field of your file with `field {}=<name>`{}",
                missing.role,
                if missing.field == "text" {
                    ", or the two of a sentence pair with `field premise=<name>` and `field hypothesis=<name>`"
                } else {
                    ""
                }
            ),
        };
        Err(Error::data(
            Place::line(path, record.line),
            format!("a field `{}`", missing.field),
            missing.have,
        )
        .with_hint(hint))
    }

    /// Decides how answers are written, and reads them; those that cannot be read are bad rows. Returns none where there are none.
    fn read_answers(&mut self, splits: &mut [Rows]) -> Result<Option<AnswerReading>> {
        let rows = splits
            .iter()
            .flat_map(|split| split.rows.iter().map(move |row| (split, row)));
        let asked: Vec<AnswerRow<'_>> = rows
            .filter_map(|(split, row)| match &row.target {
                Target::Answer(answer) => Some(AnswerRow {
                    answer,
                    input: &row.input,
                    file: &split.files[row.origin.file as usize].path,
                    line: row.origin.line,
                }),
                _ => None,
            })
            .collect();
        if asked.is_empty() {
            return Ok(None);
        }
        let told = self.reading.as_ref().and_then(|reading| reading.answers);
        let reading = match told {
            Some(reading) => reading,
            None => answers::decide(&asked, self.settings.max_bad)?,
        };
        for split in splits {
            let files = &split.files;
            split.rows.retain_mut(|row| {
                let (Target::Answer(answer), Input::Choice { choices, .. }) = (&row.target, &row.input) else {
                    return true;
                };
                if let Some(choice) = reading.choice(answer, choices) {
                    row.target = Target::Choice(choice);
                    return true;
                }
                let reason = format!(
                    "expected an answer to {} choices ({reading}), found `{}`",
                    choices.len(),
                    answer.text
                );
                let path = &files[row.origin.file as usize].path;
                self.reject(path, row.origin.line, Fault::new(FaultKind::Answer, reason));
                false
            });
            if split.rows.is_empty() {
                return Err(self.too_many_bad());
            }
            self.check_bad_of(split)?;
        }
        Ok(Some(reading))
    }

    fn allowed(&self) -> u64 {
        (self.settings.max_bad * self.rows.values().sum::<u64>() as f64) as u64
    }

    fn check_bad(&self) -> Result<()> {
        if self.rejects.len() as u64 > self.allowed() {
            Err(self.too_many_bad())
        } else {
            Ok(())
        }
    }

    /// What holds for all rows holds for each split: few validation rows are a small share of all, even if all of them are bad.
    fn check_bad_of(&self, split: &Rows) -> Result<()> {
        let of_file = |file: &SourceFile| Some((file.path.clone(), *self.rows.get(&file.path)?));
        let rows = split.files.iter().filter_map(of_file).collect();
        let paths: Vec<&Path> = split.files.iter().map(|file| &*file.path).collect();
        check_split(rejects_of(&self.rejects, &paths), &rows, self.settings.max_bad)
    }

    fn too_many_bad(&self) -> Error {
        too_many_bad(&self.rejects, &self.rows, self.allowed())
    }
}

/// What a comparison of the splits' texts tells; the fields are those of [`Dataset`].
struct Compared {
    pool: Vec<RowId>,
    duplicates: u64,
    leaks: Leaks,
    in_test: Vec<RowId>,
}

fn compare(train: &Split, validation: &Split, test: Option<&Split>, policy: LeakPolicy) -> Result<Compared> {
    let validation_identities = validation.identities();
    let in_validation: HashMap<_, _> = validation_identities.iter().copied().zip(0usize..).collect();
    let in_test: HashMap<_, _> = test
        .map(Split::identities)
        .unwrap_or_default()
        .into_iter()
        .zip(0usize..)
        .collect();
    let mut seen = HashSet::with_capacity(train.examples.len());
    let mut pool = Vec::with_capacity(train.examples.len());
    let (mut duplicates, mut leaks) = (0, Leaks::default());
    for (row, identity) in train.identities().into_iter().enumerate() {
        duplicates += u64::from(!seen.insert(identity));
        let leak = match (in_validation.get(&identity), in_test.get(&identity)) {
            (Some(&twin), _) => {
                leaks.validation += 1;
                Some((validation, twin))
            }
            (None, Some(&twin)) => {
                leaks.test += 1;
                test.map(|test| (test, twin))
            }
            (None, None) => None,
        };
        match (leak, policy) {
            (Some(twin), LeakPolicy::Fail) => return Err(leaked((train, row), twin)),
            (Some(_), LeakPolicy::Drop) => {}
            _ => pool.push(row as RowId),
        }
    }
    let twins = validation_identities.iter().map(|identity| in_test.get(identity));
    let both: Vec<(usize, usize)> = (0..).zip(twins).filter_map(|(row, twin)| Some((row, *twin?))).collect();
    if let (LeakPolicy::Fail, Some(test), Some(&(row, twin))) = (policy, test, both.first()) {
        return Err(leaked((validation, row), (test, twin)));
    }
    Ok(Compared {
        pool,
        duplicates,
        leaks,
        in_test: both.into_iter().map(|(row, _)| row as RowId).collect(),
    })
}

/// That a row of one split has the text of a row of another.
fn leaked((split, row): (&Split, usize), (other, twin): (&Split, usize)) -> Error {
    let place = |split: &Split, row: usize| {
        let origin = split.examples[row].origin;
        Place::line(&split.files[origin.file as usize].path, origin.line)
    };
    Error::data(
        place(split, row),
        "a row that is in no other split",
        format!("the text of {}", place(other, twin)),
    )
    .with_hint("`leaks drop` trains on no row that also judges, and counts them")
}

fn fingerprint(settings: &DataSettings, splits: &[Option<&Split>]) -> Fingerprint {
    let mut parts = vec![format!("{:?} {:?} {:?}", settings.task, settings.field, settings.leaks)];
    for split in splits {
        parts.push("split".to_owned());
        parts.extend(
            split
                .iter()
                .flat_map(|split| &split.files)
                .map(|file| file.hash.to_string()),
        );
    }
    Fingerprint::of(parts)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    use super::*;
    use crate::budget::{Limit, random_control};
    use tamis_nn::{Silent, seed::Seed};

    const GOOD: &str = "{\"text\": \"a cat\", \"label\": \"yes\"}\n{\"text\": \"a dog\", \"label\": \"no\"}\n";

    fn settings(folder: &Path, train: &str, validation: &str) -> DataSettings {
        let (train_path, validation_path) = (folder.join("train.jsonl"), folder.join("validation.jsonl"));
        fs::write(&train_path, train).expect("writes");
        fs::write(&validation_path, validation).expect("writes");
        DataSettings {
            train: vec![train_path],
            validation: vec![validation_path],
            ..DataSettings::default()
        }
    }

    /// What a user is told, with the folder's name taken out.
    fn complaint(train: &str, validation: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let error = read(&settings(folder.path(), train, validation), &Silent).expect_err("is refused");
        assert!(error.is_input());
        let hint = error.hint().map_or(String::new(), |hint| format!("\nhint: {hint}"));
        format!("{error}{hint}").replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn rows_that_stay_are_numbered_anew_and_are_the_same_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        let row = |i: usize| format!("{{\"text\": \"row {i}\", \"label\": {}}}\n", i % 2);
        // Row 2 also stands in validation, so that it is none of the pool.
        let train: String = (0..8).map(row).collect();
        let mut data = read(&settings(folder.path(), &train, &(row(2) + &row(9))), &Silent).expect("reads");
        let before = data.fingerprint.clone();
        assert_eq!((data.pool_rows(), data.random_pool().len()), (7, 7));
        data.keep(&[1, 4, 5, 7], &[4, 7], 70);
        let texts: Vec<Vec<&str>> = data
            .train
            .examples
            .iter()
            .map(|example| example.input.texts())
            .collect();
        assert_eq!(texts, [["row 1"], ["row 4"], ["row 5"], ["row 7"]]);
        assert_eq!((&data.pool[..], data.random_pool()), (&[0, 1, 2, 3][..], &[1, 3][..]));
        assert_eq!((data.pool_rows(), data.train.record_number(3)), (7, 7));
        assert_ne!(data.fingerprint, before);
        // Controls are of the drawn rows, whose tokens are at their places in the pool.
        for seed in 0..5 {
            let control = |limit| random_control(&data, &[9, 2, 9, 3], limit, Seed(seed));
            assert_eq!(control(Limit::Tokens(5)), [1, 3]);
            assert!([[1], [3]].contains(&control(Limit::Rows(1)).try_into().expect("a row")));
        }
    }

    #[test]
    fn good_rows_come_out_in_order_with_their_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let train =
            "\u{feff}{\"text\": \"naïve 🐈\", \"label\": 10}\r\n\r\n{\"text\": \"b\", \"label\": 9, \"id\": null}";
        let data = read(
            &settings(folder.path(), train, "{\"text\": \"c\", \"label\": 9}\n"),
            &Silent,
        )
        .expect("reads");
        assert_eq!(
            data.task,
            Task {
                kind: TaskKind::Classification,
                labels: vec!["9".into(), "10".into()]
            }
        );
        assert_eq!(data.train.examples[0].input, Input::Text("naïve 🐈".into()));
        assert_eq!(
            data.train.examples[1].origin,
            Origin {
                file: 0,
                line: 3,
                record: 2
            }
        );
        assert_eq!(data.train.targets(), [1, 0]);
        assert_eq!((data.pool, data.rejects), (vec![0, 1], vec![]));
    }

    #[test]
    fn lines_of_csv_files_are_counted_whatever_ends_them() {
        let folder = tempfile::tempdir().expect("a folder");
        for end in ["\n", "\r\n"] {
            let path = folder.path().join("train.csv");
            let rows = ["text,label", "a,yes", "\"two", "lines\",no", "c,yes", ""];
            fs::write(&path, format!("\u{feff}{}", rows.join(end))).expect("writes");
            let mut settings = settings(folder.path(), GOOD, GOOD);
            settings.train = vec![path];
            let data = read(&settings, &Silent).expect("reads");
            let lines: Vec<u64> = data.train.examples.iter().map(|example| example.origin.line).collect();
            assert_eq!(lines, [2, 3, 5], "{end:?}");
        }
    }

    #[test]
    fn other_separators_than_commas_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for separator in [";", "\t"] {
            let path = folder.path().join("train.csv");
            fs::write(&path, format!("text{separator}label\na, b{separator}yes\n")).expect("writes");
            let mut settings = settings(folder.path(), GOOD, GOOD);
            settings.train = vec![path];
            let error = read(&settings, &Silent).expect_err("no commas").to_string();
            let expected = format!(
                "train.csv, line 1: expected columns with commas between them, found one column with {separator:?} in its name"
            );
            assert!(error.ends_with(&expected), "{error}");
        }
    }

    #[test]
    fn a_missing_field_names_the_line_and_the_way_out() {
        insta::assert_snapshot!(complaint("{\"id\": 1, \"text\": \"a\"}\n", GOOD), @r"
        train.jsonl, line 1: expected a field `label`, found id, text
        hint: name the field of your file with `field label=<name>`
        ");
        insta::assert_snapshot!(complaint("{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": 1}\n", GOOD), @r"
        train.jsonl, line 1: expected a field `text`, found label, sentence1, sentence2
        hint: name the field of your file with `field text=<name>`, or the two of a sentence pair with `field premise=<name>` and `field hypothesis=<name>`
        ");
    }

    #[test]
    fn too_many_bad_rows_stop_the_run_and_the_first_five_are_named() {
        let bad = "{\"text\": \"\", \"label\": \"a\"}\n{\"text\": 1, \"label\": \"a\"}\n{\"text\": \"t\", \"label\": []}\n{broken\n[]\n{}\n";
        insta::assert_snapshot!(complaint(&format!("{GOOD}{bad}"), GOOD), @r"
        6 of 8 rows are bad, more than the 1 that are allowed; the first:
          train.jsonl, line 3: expected a text in `text`, found an empty text
          train.jsonl, line 4: expected a text in `text`, found a number
          train.jsonl, line 5: expected a label (a text, a whole number, true or false) in `label`, found a list
          train.jsonl, line 6: expected a JSON object, found broken JSON at column 2 (key must be a string)
          train.jsonl, line 7: expected a JSON object, found a list
        hint: mend the rows, or allow more of them with `max_bad <share>`: they are then left out and listed in rejects.jsonl
        ");
    }

    #[test]
    fn few_validation_rows_are_not_lost_among_many_training_rows() {
        let row = |label: &str, i: usize| format!("{{\"text\": \"{label} {i}\", \"label\": {label}}}\n");
        let train: String = (0..600).map(|i| row(if i % 2 == 0 { "0" } else { "1" }, i)).collect();
        let validation: String = (0..6)
            .map(|i| row(if i < 3 { "0" } else { "null" }, 1000 + i))
            .collect();
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = settings(folder.path(), &train, &validation);
        settings.max_bad = 0.01;
        let error = read(&settings, &Silent)
            .expect_err("half of the validation rows")
            .to_string();
        assert!(
            error.contains("validation.jsonl, line 4") && error.contains("3 of the file's 6 rows"),
            "{error}"
        );
    }

    #[test]
    fn a_field_that_is_named_is_read_or_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let pairs = "{\"premise\": \"a\", \"hypothesis\": \"b\", \"label\": 0}\n{\"premise\": \"c\", \"hypothesis\": \"d\", \"label\": 1}\n";
        let mut settings = settings(folder.path(), pairs, pairs);
        settings.leaks = LeakPolicy::Keep;
        settings.field = [("text".to_owned(), "premise".to_owned())].into();
        let data = read(&settings, &Silent).expect("reads");
        assert_eq!(data.train.examples[0].input, Input::Text("a".into()));

        let rows = "{\"instruction\": \"a\", \"context\": \"b\", \"output\": \"c\"}\n";
        let mut settings = self::settings(folder.path(), rows, rows);
        settings.field = [("input".to_owned(), "contxt".to_owned())].into();
        let error = read(&settings, &Silent).expect_err("no such field").to_string();
        assert!(error.contains("expected a field `contxt` in some row"), "{error}");
    }

    #[test]
    fn a_few_bad_rows_are_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = settings(
            folder.path(),
            &format!("{GOOD}oops\n"),
            "{\"text\": \"x\", \"label\": \"no\"}",
        );
        settings.max_bad = 0.5;
        let data = read(&settings, &Silent).expect("reads");
        assert_eq!(
            (data.train.examples.len(), data.rejects.len(), data.rejects[0].line),
            (2, 1, 3)
        );
    }

    #[test]
    fn labels_and_files_that_do_not_fit_are_refused() {
        insta::assert_snapshot!(complaint(GOOD, "{\"text\": \"x\", \"label\": \"perhaps\"}"), @r"
        validation.jsonl, line 1: expected labels that the training rows know (`no`, `yes`), found 1 row with `perhaps`
        hint: add training rows of these labels, or write the labels alike in the training and the validation files; a name of another field goes into `field label=<name>`
        ");
        insta::assert_snapshot!(complaint("{\"text\": \"x\", \"label\": 1}", "{\"text\": \"y\", \"label\": 1}"), @r"
        train.jsonl: expected training rows of at least two labels, found only `1`
        hint: one label leaves nothing to learn; if the labels stand in another field, name it: `field label=<name>`
        ");
        let numbered = "{\"text\": \"x\", \"label\": 0}\n{\"text\": \"y\", \"label\": 1}\n";
        insta::assert_snapshot!(complaint(numbered, "{\"text\": \"z\", \"label\": -1}"), @r"
        validation.jsonl, line 1: expected labels that the training rows know (`0`, `1`), found 1 row with `-1`
        hint: rows without a label (null, or -1 in Hugging Face datasets) teach and judge nothing: give a file whose rows have theirs, often the split named validation in place of the one named test
        ");
        insta::assert_snapshot!(complaint(GOOD, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"), @r"
        validation.jsonl: expected rows, found a pointer of Git LFS
        hint: fetch the file itself: `git lfs pull` in the folder that was cloned
        ");
        insta::assert_snapshot!(complaint("", GOOD), @"train.jsonl: expected at least one row, found none");
        insta::assert_snapshot!(complaint(GOOD, GOOD), @r"
        train.jsonl: expected at least one row that is not also in validation or test, found 2 rows that all are
        hint: give other training rows, or choose among these with `leaks keep`: what they score then flatters
        ");
    }

    #[test]
    fn prompts_with_responses_have_no_labels() {
        let folder = tempfile::tempdir().expect("a folder");
        let row = |response: &str| format!("{{\"prompt\": \"p\", \"completion\": \"{response}\"}}\n");
        let mut settings = settings(folder.path(), &(row("a") + &row("")), &row("b"));
        settings.max_bad = 0.5;
        let data = read(&settings, &Silent).expect("reads");
        assert_eq!((data.task.kind, data.task.labels.len()), (TaskKind::Response, 0));
        assert_eq!((data.pool, data.rejects.len()), (vec![0], 1));
    }

    #[test]
    fn what_is_no_file_is_refused_before_it_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = settings(folder.path(), GOOD, GOOD);
        settings.train = vec!["/dev/null".into()];
        let error = read(&settings, &Silent).expect_err("is refused");
        assert_eq!(
            error.to_string(),
            "/dev/null: expected a file, found a pipe or a device"
        );
    }

    #[test]
    fn leaks_are_dropped_kept_or_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let train =
            format!("{GOOD}{{\"text\": \"a cow\", \"label\": \"no\"}}\n{{\"text\": \"a cow\", \"label\": \"no\"}}\n");
        let mut settings = settings(folder.path(), &train, "{\"text\": \"a dog\", \"label\": \"yes\"}\n");
        let data = read(&settings, &Silent).expect("reads");
        assert_eq!(
            (data.pool.as_slice(), data.leaks.validation, data.duplicates),
            (&[0, 2, 3][..], 1, 1)
        );
        settings.leaks = LeakPolicy::Keep;
        assert_eq!(read(&settings, &Silent).expect("reads").pool.len(), 4);
        settings.leaks = LeakPolicy::Fail;
        let error = read(&settings, &Silent).expect_err("leaks").to_string();
        assert!(
            error.contains("train.jsonl, line 2") && error.contains("validation.jsonl, line 1"),
            "{error}"
        );
    }

    #[test]
    fn validation_rows_that_stand_in_test_are_known_or_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let validation = "{\"text\": \"a hen\", \"label\": \"no\"}\n{\"text\": \"a fox\", \"label\": \"no\"}\n";
        let mut settings = settings(folder.path(), GOOD, validation);
        let test = folder.path().join("test.jsonl");
        fs::write(&test, "{\"text\": \"a fox\", \"label\": \"yes\"}\n").expect("writes");
        settings.test = vec![test];
        let data = read(&settings, &Silent).expect("reads");
        assert_eq!((data.in_test.as_slice(), data.pool.len()), (&[1][..], 2));
        settings.leaks = LeakPolicy::Fail;
        let error = read(&settings, &Silent).expect_err("leaks").to_string();
        assert!(
            error.contains("validation.jsonl, line 2") && error.contains("test.jsonl, line 1"),
            "{error}"
        );
    }

    #[test]
    fn missing_files_and_unknown_endings_are_named() {
        let settings = |path: &str| DataSettings {
            train: vec![path.into()],
            validation: vec![path.into()],
            ..DataSettings::default()
        };
        let error = read(&settings("/nowhere/train.jsonl"), &Silent).expect_err("is missing");
        assert!(
            error.is_input() && error.to_string().starts_with("/nowhere/train.jsonl: could not read"),
            "{error}"
        );
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("train.txt");
        fs::write(&path, "x").expect("writes");
        let error = read(&settings(&path.to_string_lossy()), &Silent)
            .expect_err("is no table")
            .to_string();
        assert!(error.contains("expected a file named .jsonl, .json, .csv"), "{error}");
    }

    #[test]
    fn a_line_of_a_megabyte_is_a_row_like_any_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = "é".repeat(1 << 19);
        let train = format!("{GOOD}{{\"text\": \"{long}\", \"label\": \"yes\"}}\n");
        let data = read(
            &settings(folder.path(), &train, "{\"text\": \"x\", \"label\": \"yes\"}"),
            &Silent,
        )
        .expect("reads");
        assert_eq!(data.train.examples[2].input.texts(), [long.as_str()]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), ending in 0usize..4) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join(["t.jsonl", "t.csv", "t.parquet", "t.jsonl.gz"][ending]);
            fs::write(&path, &bytes).expect("writes");
            let good = folder.path().join("v.jsonl");
            fs::write(&good, GOOD).expect("writes");
            let settings = DataSettings { train: vec![path], validation: vec![good], ..DataSettings::default() };
            prop_assert!(read(&settings, &Silent).is_err());
        }
    }
}
