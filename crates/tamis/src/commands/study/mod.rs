//! `study`: methods x budgets x seeds on one data set, every selection judged alike.
//!
//! A cell is one method at one budget with one seed. Cells of a seed share what prepares them (embeddings, clusters, features) and
//! run side by side, each on one core, so that their seconds can be compared. A cell's record goes into the study's ledger as
//! soon as it is there, and a study that was killed goes on with the cells that are missing; a cell that was killed midway goes on
//! with the scores that it has paid for. With one seed, a cell of an agent chooses what `select` chooses with that seed and
//! `rerank probe`.

mod cell;
mod external_selections;
mod seed_context;
mod tables;

use std::path::PathBuf;

use tamis_nn::Monitor;

use crate::{
    Error, Result,
    budget::Budget,
    commands::study::{
        cell::Job,
        seed_context::{Columns, SeedContext},
    },
    data::{self, Dataset},
    pipeline::{
        embed,
        responses::Responses,
        rules::of_responses,
        session::{Read, read},
        stages::{Stages, cpu_seconds},
    },
    records::{
        selection::ReadRecord,
        study::{self, CellRecord, StudyRecord, WHOLE},
    },
    report,
    scorer::worker_pool::side_by_side,
    search::Method,
    settings::{
        select::{JudgeKind, SelectSettings},
        study::StudySettings,
        study_method::StudyMethod,
    },
    store::{ScoreStore, SqliteStore},
    workspace::{folder, json},
};

/// What the file of a study's settings is called.
const SETTINGS: &str = "study.settings.json";
/// Settings that say which cells there are and never what is in one, so that a study may grow.
const EXTENT: [&str; 6] = ["methods", "budgets", "seeds", "selections", "agent", "budget"];

/// Runs the cells that are missing, and writes what all of them come to: study.json, study.csv, study.md, report.html. A study
/// that is there may be given more methods, budgets and seeds.
///
/// # Errors
///
/// If the data, the settings or the folder are not as they must be, a file cannot be written, or the user stopped. A cell that
/// fails is recorded with its reason, tried again by the next start, and ends nothing.
pub fn study(settings: &StudySettings, monitor: &dyn Monitor) -> Result<StudyRecord> {
    let began = cpu_seconds();
    settings.check()?;
    let stages = Stages::new(monitor);
    let first = SelectSettings {
        budget: *settings.budgets.first().unwrap_or(&settings.select.budget),
        ..settings.select.clone()
    };
    let Read {
        settings: select,
        dataset,
        responses,
        ..
    } = read(&first, &stages)?;
    let responses = responses.as_ref();
    let for_responses = |method: &StudyMethod| match method {
        StudyMethod::Rule(rule) if rule.needs_responses() => Some(*rule),
        _ => None,
    };
    if let (Some(rule), None) = (settings.methods.iter().find_map(for_responses), responses) {
        return Err(of_responses(rule));
    }
    select.check_model_is_used(dataset.task.kind)?;
    let methods = if settings.methods.is_empty() {
        StudyMethod::all(responses.is_some())
    } else {
        settings.methods.clone()
    };
    // Only a portfolio needs more modes than one.
    let portfolio = methods.contains(&StudyMethod::Search(Method::Auto));
    let settings = &StudySettings {
        select: SelectSettings {
            budget: settings.select.budget,
            agent: if portfolio { Method::Auto } else { Method::Dqn },
            ..select
        },
        methods,
        ..settings.clone()
    };
    for budget in &settings.budgets {
        let limit = budget.resolve(dataset.pool.len() as u64, u64::MAX);
        limit.map_err(|error| error.of_setting("budgets"))?;
    }
    // What stands in a file is a matter of its cell; one that is not there is told before hours go into the others.
    if let Some(path) = all_jobs(settings)
        .iter()
        .filter_map(Job::file)
        .find(|path| !path.exists())
    {
        let found = format!("nothing at {}", path.display());
        return Err(Error::setting("selection", "a file that names rows", found));
    }
    let now = json::without(settings, &[&folder::NEUTRAL[..], &EXTENT].concat())?;
    let sources = embed::sources(&settings.select, &dataset, responses)?;
    let ledger = folder::claim_with_ledger(&settings.select.out, SETTINGS, &now, &sources)?;
    data::write_rejects(&dataset.rejects, &settings.select.out)?;
    let columns = Columns::of(&dataset, settings)?;
    let mut store = StudyStore::open(settings, &dataset, &columns, ledger, began)?;
    store.write(settings)?;
    let outcome = run_seeds(settings, (&dataset, responses), &columns.tests, &mut store, &stages);
    // A study that was stopped has its tables and its page too; they say what is missing.
    let written = store.write(settings).and_then(|record| {
        tables::write_tables(&record, &settings.select.out)?;
        report::write_study(&settings.select.out)?;
        Ok(record)
    });
    outcome.and(written)
}

fn run_seeds(
    settings: &StudySettings,
    data: (&Dataset, Option<&Responses>),
    tests: &[Vec<u32>],
    store: &mut StudyStore<'_>,
    stages: &Stages<'_>,
) -> Result<()> {
    let mut vectors = None;
    for index in 0..settings.seeds {
        let jobs = missing(&store.all, settings.of_seed(index).seed.0, &store.cells);
        if jobs.is_empty() {
            continue;
        }
        let context = SeedContext::new(settings, index, data, tests, vectors.take(), stages)?;
        run(settings, &context, jobs, store, stages.monitor())?;
        vectors = context.into_vectors();
    }
    Ok(())
}

/// What the study has so far, and where it is kept.
struct StudyStore<'a> {
    ledger: SqliteStore,
    /// Every cell of the study, in the order of its record, and those that are there.
    all: Vec<Job>,
    cells: Vec<CellRecord>,
    columns: &'a Columns,
    read: ReadRecord,
    /// The process's core-seconds when this start began.
    began: f64,
    /// Core-seconds of earlier starts.
    before: f64,
}

impl<'a> StudyStore<'a> {
    /// Reads the cells that are there.
    fn open(
        settings: &StudySettings,
        dataset: &Dataset,
        columns: &'a Columns,
        ledger: SqliteStore,
        began: f64,
    ) -> Result<Self> {
        let number = |name| -> Result<f64> { Ok(ledger.meta(name)?.and_then(|text| text.parse().ok()).unwrap_or(0.0)) };
        let before = number(folder::FILED)?;
        let all = all_jobs(settings);
        let mut cells = Vec::new();
        for job in &all {
            if let Some(text) = ledger.meta(&job.name())? {
                // What cannot be read is made again.
                cells.extend(serde_json::from_str::<CellRecord>(&text));
            }
        }
        Ok(Self {
            ledger,
            all,
            cells,
            columns,
            read: ReadRecord::of(dataset),
            began,
            before,
        })
    }

    /// Files a cell.
    fn file(&mut self, job: &Job, cell: CellRecord) -> Result<()> {
        let text = serde_json::to_string(&cell).unwrap_or_default();
        // First what says that the study has begun: a folder with a cell in it is taken over by no other.
        self.ledger.set_meta(folder::FILED, &self.core_seconds().to_string())?;
        self.ledger.set_meta(&job.name(), &text)?;
        self.cells.retain(|there| !job.makes(there));
        self.cells.push(cell);
        Ok(())
    }

    /// Core-seconds of all starts.
    fn core_seconds(&self) -> f64 {
        self.before + cpu_seconds() - self.began
    }

    /// Writes study.json, whole or with the cells that there are.
    fn write(&mut self, settings: &StudySettings) -> Result<StudyRecord> {
        let order = &self.all;
        self.cells
            .sort_by_key(|cell| order.iter().position(|job| job.makes(cell)));
        let core_seconds = self.core_seconds();
        let budgets: Vec<String> = settings.budgets.iter().map(Budget::to_string).collect();
        let mut record = StudyRecord {
            version: study::VERSION,
            tamis: env!("CARGO_PKG_VERSION").to_owned(),
            metric: settings.select.report_metric().to_string(),
            judge: match settings.select.rerank() {
                JudgeKind::Finetune => "finetune".into(),
                JudgeKind::Probe | JudgeKind::Trainer => "probe".into(),
            },
            columns: self.columns.names.clone(),
            column_rows: self.columns.rows.clone(),
            pool: self.read.pool,
            read: Some(self.read),
            methods: study::table(&self.cells, &budgets, &settings.lines()),
            seeds: (0..settings.seeds)
                .map(|index| settings.of_seed(index).seed.0)
                .collect(),
            budgets,
            cells: self.cells.clone(),
            expected: order.len() as u64,
            verdict: Vec::new(),
            threads: rayon::current_num_threads() as u64,
            core_seconds,
            command: settings.select.command.clone().unwrap_or_default(),
            settings: serde_json::to_value(settings).unwrap_or_default(),
        };
        record.verdict = study::verdict(&record);
        json::write_json(&study_path(settings), &record)?;
        Ok(record)
    }
}

/// Every cell of a study.
fn all_jobs(settings: &StudySettings) -> Vec<Job> {
    (0..settings.seeds).flat_map(|index| jobs(settings, index)).collect()
}

/// The cells of a seed: rules that compare each row with all others come first, then what learns.
fn jobs(settings: &StudySettings, index: u64) -> Vec<Job> {
    let seed = settings.of_seed(index).seed.0;
    let mut jobs = Vec::new();
    let job = |budget: Option<usize>, method: &str, method_of: cell::Source| Job {
        seed,
        budget_index: budget.unwrap_or(0),
        budget: budget.map_or(WHOLE.to_owned(), |b| settings.budgets[b].to_string()),
        method: method.to_owned(),
        source: method_of,
    };
    if settings.methods.contains(&StudyMethod::Everything) {
        let method = StudyMethod::Everything;
        jobs.push(job(None, &method.to_string(), cell::Source::Method(method)));
    }
    for budget in 0..settings.budgets.len() {
        let mut methods: Vec<StudyMethod> = settings.methods.iter().rev().copied().collect();
        methods.retain(|&method| method != StudyMethod::Everything);
        methods.sort_by_key(|method| !method.compares_all_rows());
        for method in methods {
            jobs.push(job(Some(budget), &method.to_string(), cell::Source::Method(method)));
        }
        for (name, path) in &settings.selections {
            let path = path.replace("{seed}", &seed.to_string());
            let path = PathBuf::from(path.replace("{budget}", &settings.budgets[budget].to_string()));
            let contents = cell::Contents::of(&path);
            jobs.push(job(Some(budget), name, cell::Source::File(path, contents)));
        }
    }
    jobs
}

/// Those of a seed that are not there yet: first those that no other seed has told of, in their order, then those that took longest, so that
/// no core waits long for the last of them.
fn missing(all: &[Job], seed: u64, there: &[CellRecord]) -> Vec<Job> {
    let made = |job: &Job| there.iter().any(|cell| job.makes(cell) && cell.error.is_none());
    let of_seed = all.iter().filter(|job| job.seed == seed && !made(job));
    let mut jobs: Vec<Job> = of_seed.cloned().collect();
    let took = |job: &Job| {
        let alike =
            |cell: &&CellRecord| cell.error.is_none() && (&cell.budget, &cell.method) == (&job.budget, &job.method);
        let seconds = |cell: &CellRecord| cell.seconds.choose + cell.seconds.judge;
        there
            .iter()
            .filter(alike)
            .map(seconds)
            .next_back()
            .unwrap_or(f64::INFINITY)
    };
    jobs.sort_by(|a, b| took(b).total_cmp(&took(a)));
    jobs
}

/// Runs a seed's cells side by side, one a thread, and files each as it comes.
fn run(
    settings: &StudySettings,
    context: &SeedContext<'_>,
    jobs: Vec<Job>,
    store: &mut StudyStore<'_>,
    monitor: &dyn Monitor,
) -> Result<()> {
    monitor.begin(&format!("seed {}", context.settings.seed.0), Some(jobs.len() as u64));
    let work = |job: &Job| cell::run(settings, context, job, monitor);
    let outcome = side_by_side(jobs, 1, monitor, &work, &mut |job, cell| {
        monitor.note(&format!("{} at {}", job.method, job.budget));
        monitor.advance(1);
        match cell {
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(error) => store.file(&job, job.failed(&error)),
            Ok(cell) => store.file(&job, cell),
        }?;
        store.write(settings).map(|_| ())
    });
    monitor.end();
    outcome
}

/// Where the record of a study is.
pub fn study_path(settings: &StudySettings) -> PathBuf {
    settings.select.out.join("study.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::study::RANDOM;

    #[test]
    fn jobs_are_those_that_are_missing_or_failed() {
        let settings = StudySettings {
            methods: vec![StudyMethod::Everything, StudyMethod::Random],
            budgets: vec![Budget::Percent(1.0), Budget::Percent(5.0)],
            seeds: 2,
            ..StudySettings::default()
        };
        let names = |jobs: &[Job]| jobs.iter().map(Job::name).collect::<Vec<_>>();
        let all = names(&all_jobs(&settings));
        assert_eq!(
            all[..3],
            ["cell/100%/everything/0", "cell/1%/random/0", "cell/5%/random/0"]
        );
        assert_eq!(all.len(), 6);
        let jobs_of_0 = missing(&all_jobs(&settings), 0, &[]);
        let mut done = jobs_of_0[1].failed(&Error::Interrupted);
        assert_eq!(
            missing(&all_jobs(&settings), 0, &[done.clone()]).len(),
            3,
            "what failed is tried again"
        );
        done.error = None;
        assert_eq!(missing(&all_jobs(&settings), 0, &[done]).len(), 2);
    }

    #[test]
    fn a_selection_may_not_take_a_methods_name() {
        let mut settings = StudySettings::default();
        settings.selections.insert(RANDOM.into(), "rows.txt".into());
        assert!(
            settings
                .check()
                .expect_err("taken")
                .to_string()
                .contains("a name that no method has")
        );
        settings.selections.clear();
        settings.selections.insert("mine".into(), "rows-{seed}.txt".into());
        settings.budgets.push(Budget::Rows(10));
        assert!(
            settings
                .check()
                .expect_err("one for both")
                .to_string()
                .contains("{budget}")
        );
    }
}
