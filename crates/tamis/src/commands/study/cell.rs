//! One cell of a study: rows are chosen, trained on, and scored.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use tamis_nn::{Fingerprint, Monitor, atomic_write::write_whole, monitor::Quiet};

use crate::{
    Error, Place, Result,
    baselines::Baseline,
    budget::{Limit, random_rows, tokens_of},
    commands::study::{external_selections, seed_context::SeedContext},
    data::RowId,
    pipeline::{
        evidence::Judge,
        portfolio::{Mode, Portfolio},
        probe::{Fold, MOMENTS_MEMORY},
        rules::by_rule,
        search::{Chunks, Found, Rewards, check_episode, search, too_short},
        stages::Stages,
        target::{ScoredRows, Target},
    },
    problem::Limits,
    records::{
        portfolio::PortfolioRecord,
        study::{CellRecord, Seconds},
    },
    search::{Method, RewardModelKind},
    settings::{
        StudySettings,
        select::{JudgeKind, SelectSettings},
        study_method::StudyMethod,
    },
    store::SqliteStore,
};

/// How many random selections are drawn where a score costs a moment.
const DRAWS: u64 = 10;

/// Where a cell's rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A method chooses them.
    Method(StudyMethod),
    /// A file names them.
    File(PathBuf, Contents),
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents(Option<Fingerprint>);

impl Contents {
    /// Of the file as it is now, or is not.
    pub(crate) fn of(path: &Path) -> Self {
        Self(fs::read(path).ok().map(|bytes| Fingerprint::of([bytes])))
    }
}

/// A cell that is to be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) seed: u64,
    /// The budget's place among the budgets.
    pub(crate) budget_index: usize,
    pub(crate) budget: String,
    pub(crate) method: String,
    pub(crate) source: Source,
}

impl Job {
    /// What the cell is filed under.
    pub(crate) fn name(&self) -> String {
        let name = format!("cell/{}/{}/{}", self.budget, self.method, self.seed);
        match &self.source {
            Source::File(_, Contents(Some(contents))) => format!("{name}/{contents}"),
            _ => name,
        }
    }

    /// The file that names its rows, if one does.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.source {
            Source::File(path, _) => Some(path),
            Source::Method(_) => None,
        }
    }

    /// Whether this is the cell.
    pub(crate) fn makes(&self, cell: &CellRecord) -> bool {
        (&cell.budget, &cell.method, cell.seed) == (&self.budget, &self.method, self.seed)
    }

    /// The cell, failed.
    pub(crate) fn failed(&self, error: &Error) -> CellRecord {
        let reason = match error.hint() {
            Some(hint) => format!("{error} (hint: {hint})"),
            None => error.to_string(),
        };
        CellRecord {
            error: Some(reason),
            ..self.blank()
        }
    }

    /// The cell with nothing in it.
    fn blank(&self) -> CellRecord {
        CellRecord {
            budget: self.budget.clone(),
            method: self.method.clone(),
            seed: self.seed,
            rows: 0,
            tokens: 0,
            draws: Vec::new(),
            evaluations: 0,
            seconds: Seconds::default(),
            portfolio: None,
            error: None,
        }
    }

    /// Where a search files its scores; whole cells are in the study's own ledger.
    fn ledger(&self, study: &StudySettings) -> PathBuf {
        study
            .select
            .out
            .join("cells")
            .join(format!("{}.sqlite", self.file_name()))
    }

    /// The ledger, empty or with what an earlier start paid for.
    fn open_ledger(&self, study: &StudySettings) -> Result<SqliteStore> {
        let path = self.ledger(study);
        make_folder_of(&path)?;
        SqliteStore::open(&path)
    }

    /// The cell's name as a part of a path.
    fn file_name(&self) -> String {
        format!("{}/{}-{}", self.budget.replace(' ', "-"), self.method, self.seed)
    }
}

/// What was chosen.
struct Choice {
    /// One selection, or several draws of one; each ascends.
    draws: Vec<Vec<RowId>>,
    evaluations: u64,
    /// What it took.
    seconds: f64,
    /// What preparing it needed.
    prepare: f64,
    /// How a portfolio decided.
    portfolio: Option<PortfolioRecord>,
}

impl Choice {
    /// What a search came to, of which these rows are chosen.
    fn of_search(mut chosen: Vec<RowId>, found: Found, context: &SeedContext<'_>, began: Instant) -> Self {
        chosen.sort_unstable();
        Self {
            draws: vec![chosen],
            evaluations: found.evaluations,
            seconds: found.earlier_seconds + began.elapsed().as_secs_f64(),
            prepare: context.seconds.total(),
            portfolio: found.portfolio.map(|decided| decided.record),
        }
    }
}

/// Chooses, judges, and writes down which rows were chosen.
pub(crate) fn run(
    study: &StudySettings,
    context: &SeedContext<'_>,
    job: &Job,
    monitor: &dyn Monitor,
) -> Result<CellRecord> {
    let quiet = Quiet(monitor);
    let choice = choose(study, context, job, &quiet)?;
    let first = &choice.draws[0];
    let path = study
        .select
        .out
        .join("selections")
        .join(format!("{}.txt", job.file_name()));
    if job.source != Source::Method(StudyMethod::Everything) {
        make_folder_of(&path)?;
        let lines = external_selections::lines(first, context.dataset);
        write_whole(&path, &mut |out| {
            out.write_all(lines.as_bytes()).map_err(Error::io(&path, "write"))
        })?;
    }
    let began = Instant::now();
    let draws = judge(study, context, job, &choice.draws, &quiet)?;
    // The scores that a search paid for are kept until its choice is judged.
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{ending}", job.ledger(study).display()));
    }
    let seconds = Seconds {
        prepare: choice.prepare,
        choose: choice.seconds,
        judge: began.elapsed().as_secs_f64(),
    };
    Ok(CellRecord {
        rows: first.len() as u64,
        tokens: tokens_of(first, &context.dataset.pool, &context.candidates.vectors.tokens),
        draws,
        evaluations: choice.evaluations,
        seconds,
        portfolio: choice.portfolio,
        ..job.blank()
    })
}

/// Lets the job's method choose.
fn choose(study: &StudySettings, context: &SeedContext<'_>, job: &Job, monitor: &dyn Monitor) -> Result<Choice> {
    let began = Instant::now();
    let budget = &context.budgets[job.budget_index];
    let (pool, tokens) = (&context.dataset.pool, &context.candidates.vectors.tokens);
    let free = |draws: Vec<Vec<RowId>>, prepare: f64| Choice {
        draws,
        evaluations: 0,
        seconds: began.elapsed().as_secs_f64(),
        prepare,
        portfolio: None,
    };
    match &job.source {
        Source::File(path, _) => Ok(free(vec![given(path, context, budget.chunks.limit)?], 0.0)),
        Source::Method(StudyMethod::Everything) => Ok(free(vec![pool.clone()], 0.0)),
        Source::Method(StudyMethod::Random) => {
            let draws = match context.settings.rerank() {
                JudgeKind::Finetune => 1,
                JudgeKind::Probe | JudgeKind::Trainer => DRAWS,
            };
            // The same rows as stand beside a selection of this seed.
            let seed = context.settings.seed.derive("controls");
            let rows = |i| random_rows(pool, tokens, budget.chunks.limit, seed.index(i));
            Ok(free((0..draws).map(rows).collect(), 0.0))
        }
        Source::Method(StudyMethod::Rule(rule)) => {
            let stages = Stages::new(monitor);
            let (candidates, probe) = (&context.candidates, &*context.at_everything);
            let stage = context.context(&context.settings, &stages);
            let rows = by_rule(*rule, stage, candidates, probe, budget.chunks.limit, &candidates.all())?;
            Ok(free(vec![rows], preparation_of(*rule, context)))
        }
        Source::Method(StudyMethod::ClusterGreedy) => {
            let settings = settings_of(study, context, job, Method::Greedy);
            searched(study, context, job, &settings, &budget.whole, monitor)
        }
        Source::Method(StudyMethod::Search(Method::Auto)) if context.settings.agent == Method::Auto => {
            by_portfolio(study, context, job, monitor)
        }
        Source::Method(StudyMethod::Search(method)) => {
            let settings = settings_of(study, context, job, *method);
            searched(study, context, job, &settings, &budget.chunks, monitor)
        }
    }
}

/// The settings of a cell whose rows this agent chooses.
fn settings_of(study: &StudySettings, context: &SeedContext<'_>, job: &Job, agent: Method) -> SelectSettings {
    // Where a slow proxy rewards, `auto` has been decided.
    let agent = if agent == Method::Auto {
        context.settings.agent
    } else {
        agent
    };
    SelectSettings {
        agent,
        budget: study.budgets[job.budget_index],
        // Whom it cannot reward is rewarded by the proxy.
        reward_model: if agent.takes_reward_model() {
            context.settings.reward_model
        } else {
            RewardModelKind::None
        },
        ..context.settings.clone()
    }
}

/// The rows that a file names, which must not cost more than the budget.
fn given(path: &Path, context: &SeedContext<'_>, limit: Limit) -> Result<Vec<RowId>> {
    let rows = external_selections::read(path, context.dataset)?;
    let (takes, most, unit) = match limit {
        Limit::Rows(most) => (rows.len() as u64, most, "rows"),
        Limit::Tokens(most) => {
            let tokens = &context.candidates.vectors.tokens;
            (tokens_of(&rows, &context.dataset.pool, tokens), most, "tokens")
        }
    };
    if takes > most {
        let expected = format!("no more than the budget's {most} {unit}");
        return Err(Error::data(Place::file(path), expected, takes.to_string()));
    }
    Ok(rows)
}

/// Seconds of the stages that a rule needs.
fn preparation_of(rule: Baseline, context: &SeedContext<'_>) -> f64 {
    let seconds = &context.seconds;
    match rule {
        Baseline::Stratified | Baseline::Longest | Baseline::Shortest | Baseline::Frequency => 0.0,
        Baseline::WithoutLabelErrors => seconds.embed + seconds.finetuned_features + seconds.label_errors,
        Baseline::KCenter | Baseline::FacilityLocation | Baseline::Similarity | Baseline::Relevance => seconds.embed,
        Baseline::Less | Baseline::Gist | Baseline::Ifd => seconds.embed + seconds.finetuned_features,
        Baseline::Hardest | Baseline::Easiest | Baseline::Median => {
            seconds.embed + seconds.finetuned_features + seconds.probe
        }
    }
}

/// Lets an agent or a search spend its evaluations; the best of its states on the confirm fold is the choice, as in `select`.
fn searched(
    study: &StudySettings,
    seed_context: &SeedContext<'_>,
    job: &Job,
    settings: &SelectSettings,
    chunks: &Chunks,
    monitor: &dyn Monitor,
) -> Result<Choice> {
    let began = Instant::now();
    let candidates = &seed_context.candidates;
    let longest = check_episode(settings, &chunks.pool, &candidates.vectors.tokens)?;
    let probe = &*seed_context.budgets[job.budget_index].probe;
    let memory = MOMENTS_MEMORY / seed_context.workers as usize;
    let scorer = probe.scorer(settings.reward_metric(), memory)?;
    let stages = Stages::new(monitor);
    let context = seed_context.context(settings, &stages);
    let rewards = Rewards::new(context, &*scorer, seed_context.target.as_ref(), None);
    let mut store = job.open_ledger(study)?;
    let limits = Limits::evaluations(settings.max_evaluations);
    let problem = rewards.pose(context, chunks, &mut store, limits, settings.seed.derive("proxy"))?;
    let mut found = search(problem, chunks, settings)?;
    let finalists = std::mem::take(&mut found.finalists);
    let mut rows: Vec<Vec<RowId>> = finalists.into_iter().map(|finalist| finalist.rows).collect();
    if rows.is_empty() {
        return Err(too_short(settings, longest, found.evaluations));
    }
    let judge = Judge::new(settings, probe, &*seed_context.at_everything);
    let chosen = rows.swap_remove(judge.choose(&rows)?);
    Ok(Choice::of_search(chosen, found, seed_context, began))
}

/// Lets a portfolio spend the evaluations and decide, as in `select`.
fn by_portfolio(
    study: &StudySettings,
    seed_context: &SeedContext<'_>,
    job: &Job,
    monitor: &dyn Monitor,
) -> Result<Choice> {
    let began = Instant::now();
    let budget = &seed_context.budgets[job.budget_index];
    let stages = Stages::new(monitor);
    let context = seed_context.context(&seed_context.settings, &stages);
    let candidates = &seed_context.candidates;
    let memory = MOMENTS_MEMORY / seed_context.workers as usize;
    let longest = check_episode(context.settings, &budget.chunks.pool, &candidates.vectors.tokens)?;
    let portfolio = Portfolio {
        context,
        candidates,
        modes: &Mode::all(context, candidates, &*budget.probe, budget.chunks.limit, memory)?,
        probe: &*budget.probe,
        at_everything: &*seed_context.at_everything,
    };
    let mut store = job.open_ledger(study)?;
    let mut found = portfolio.search(&mut store, Limits::evaluations(context.settings.max_evaluations))?;
    if found.finalists.is_empty() {
        return Err(too_short(context.settings, longest, found.evaluations));
    }
    let chosen = found.finalists.swap_remove(0).rows;
    Ok(Choice::of_search(chosen, found, seed_context, began))
}

/// The scores of each draw, one a column.
fn judge(
    study: &StudySettings,
    context: &SeedContext<'_>,
    job: &Job,
    draws: &[Vec<RowId>],
    monitor: &dyn Monitor,
) -> Result<Vec<Vec<f64>>> {
    let settings = &context.settings;
    if let (JudgeKind::Finetune, Some(target)) = (settings.rerank(), &context.target) {
        return by_finetuning(study, context, target, draws, monitor);
    }
    let whole = job.source == Source::Method(StudyMethod::Everything);
    let probe = if whole {
        &context.at_everything
    } else {
        &context.budgets[job.budget_index].probe
    };
    let tests = context.tests.iter().map(|rows| Fold::TestRows(rows));
    let folds: Vec<Fold<'_>> = std::iter::once(Fold::Confirm).chain(tests).collect();
    let (reward, report) = (settings.reward_metric(), settings.report_metric());
    draws
        .iter()
        .map(|rows| {
            let scores = probe.scores(rows, reward, &folds, &[report])?;
            Ok(scores.into_iter().map(|scores| scores[0]).collect())
        })
        .collect()
}

/// The scores of the target, fine-tuned on each draw, one a column.
fn by_finetuning(
    study: &StudySettings,
    seed_context: &SeedContext<'_>,
    target: &Target,
    draws: &[Vec<RowId>],
    monitor: &dyn Monitor,
) -> Result<Vec<Vec<f64>>> {
    let (settings, confirm) = (&seed_context.settings, &seed_context.folds.confirm);
    let stages = Stages::new(monitor);
    let context = seed_context.context(settings, &stages);
    let report = settings.report_metric();
    let scorer = target.scorer(context, confirm, confirm.len(), report);
    let columns = target.columns(context, seed_context.tests, study.eval_rows);
    draws
        .iter()
        .map(|rows| {
            let model = scorer.cold(rows, settings.seed.derive("proxy"), monitor)?;
            let column = |column: &ScoredRows<'_>| Ok(model.evaluate(column.examples(), &[report], monitor)?[0]);
            columns.iter().map(column).collect()
        })
        .collect()
}

fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(Error::io(folder, "create"))
}
