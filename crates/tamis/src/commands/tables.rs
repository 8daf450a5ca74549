//! Rows and vectors that a program holds in memory become files of a run's folder before it begins; and what is in files, for such a program.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use arrow_array::RecordBatchReader;
use tamis_nn::{
    Monitor,
    hub::{classifier, language_model::load_reader},
};

use crate::{
    Error, Result,
    data::{self, DataSettings, LeakPolicy, TABLES, TaskKind, texts_by_record},
    target::responses::{Answers, ResponseEncoder},
    workspace::folder::check_free,
};

/// Writes a table to `tables/<name>-<hash>.arrow` in the folder of a run, batch by batch; the same rows have the same file.
///
/// # Errors
///
/// If the folder holds something else, a batch cannot be had, or the file cannot be written.
pub fn keep_table(table: &mut dyn RecordBatchReader, name: &str, out: &Path) -> Result<PathBuf> {
    let path = table_path(out)?;
    data::write_table(table, name, &path)?;
    data::named_by_hash(&path, &format!("{name}.arrow"))
}

/// Where a program may write a file for a run, to be given its name by [`data::named_by_hash`]; nobody else is given the same place.
///
/// # Errors
///
/// If the folder holds something else than a run, or cannot be made.
pub fn table_path(out: &Path) -> Result<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    check_free(out)?;
    let folder = out.join(TABLES);
    fs::create_dir_all(&folder).map_err(Error::io(&folder, "create"))?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Ok(folder.join(format!(".tamis-{}-{number}.partial", std::process::id())))
}

/// The texts of every record of the training, validation and test files, for an embedder of the program's own, and how many there are of
/// each record.
///
/// # Errors
///
/// If the data are not as they must be, or the user stopped the run.
pub fn texts(settings: &DataSettings, monitor: &dyn Monitor) -> Result<Vec<(Vec<String>, usize)>> {
    let dataset = data::read(settings, monitor)?;
    let splits = [Some(&dataset.train), Some(&dataset.validation), dataset.test.as_ref()];
    Ok(splits.into_iter().flatten().map(texts_by_record).collect())
}

/// The tokens of conversations as a language model reads them, each with 1 where it is to be said; none of a row that cannot be read or
/// learned from.
pub type Conversation = Option<(Vec<u32>, Vec<u8>)>;

/// Every record of files of prompts with responses as tokens, at most `longest` of each.
///
/// # Errors
///
/// If the files are none of these, or the model's cannot be read.
pub fn conversations(
    files: &[PathBuf],
    field: BTreeMap<String, String>,
    model: &str,
    longest: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<Conversation>> {
    let settings = DataSettings {
        train: files.to_vec(),
        validation: files.to_vec(),
        task: Some(TaskKind::Response),
        leaks: LeakPolicy::Keep,
        max_bad: 1.0,
        field,
        ..DataSettings::default()
    };
    let dataset = data::read(&settings, monitor)?;
    let way_out = "name a language model, a folder or hub id: `model HuggingFaceTB/SmolLM2-135M-Instruct`";
    let (tokenizer, template) = load_reader(&classifier::files(model, "model")?, longest, way_out)?;
    let encoder = ResponseEncoder {
        template: &template,
        tokenizer: &tokenizer,
        prompt: None,
        task: &dataset.task,
        answers: &[],
    };
    let split = &dataset.train;
    let all: Vec<u32> = (0..split.examples.len() as u32).collect();
    let encoded = encoder.encode(split, &all, Answers::Right)?;
    let mut conversations: Vec<Conversation> = vec![None; split.records()];
    for row in all {
        let sequence = encoded.split.sequences_of(row).next();
        conversations[split.record_number(row) as usize] =
            sequence.map(|(tokens, said)| (tokens.to_vec(), said.to_vec()));
    }
    for (row, _) in &encoded.bad {
        conversations[split.record_number(*row) as usize] = None;
    }
    Ok(conversations)
}
