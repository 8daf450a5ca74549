//! One cell of a study: rows are chosen, trained on, and scored.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use tamis_nn::{Fingerprint, Monitor, atomic_write::write_whole, monitor::Quiet, seed::Seed};

use crate::{
    Error, Place, Result,
    baselines::{Baseline, View},
    budget::{Limit, random_rows, tokens_of},
    commands::study::{external_selections, seed_context::SeedContext},
    data::{Dataset, RowId},
    env::pool::Pool,
    pipeline::{
        evidence::Judge,
        search::{check_episode, pose, search, too_short},
        target::dear_proxy,
    },
    problem::{FeatureContext, Limits},
    records::study::{CellRecord, Seconds},
    scorer::ridge::{probe::ProbeSettings, regression::train_and_score},
    search::{Method, RewardModelKind},
    settings::{
        StudySettings,
        select::{ProxyKind, SelectSettings},
        study_method::StudyMethod,
    },
    store::ledger::Ledger,
    target::score,
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
    pub(crate) plot: usize,
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
            ..self.record((0, 0), Vec::new(), 0, Seconds::default())
        }
    }

    fn record(
        &self,
        (rows, tokens): (u64, u64),
        draws: Vec<Vec<f64>>,
        evaluations: u64,
        seconds: Seconds,
    ) -> CellRecord {
        CellRecord {
            budget: self.budget.clone(),
            method: self.method.clone(),
            seed: self.seed,
            rows,
            tokens,
            draws,
            evaluations,
            seconds,
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
}

/// Chooses, judges, and writes down which rows were chosen.
pub(crate) fn run(
    study: &StudySettings,
    ground: &SeedContext<'_>,
    job: &Job,
    monitor: &dyn Monitor,
) -> Result<CellRecord> {
    let quiet = Quiet(monitor);
    let choice = choose(study, ground, job, &quiet)?;
    let first = &choice.draws[0];
    let path = study
        .select
        .out
        .join("selections")
        .join(format!("{}.txt", job.file_name()));
    if job.source != Source::Method(StudyMethod::Everything) {
        make_folder_of(&path)?;
        let lines = external_selections::lines(first, ground.dataset);
        write_whole(&path, &mut |out| {
            out.write_all(lines.as_bytes()).map_err(Error::io(&path, "write"))
        })?;
    }
    let began = Instant::now();
    let draws = judge(study, ground, job, &choice.draws, &quiet)?;
    // The scores that a search paid for are kept until its choice is judged.
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{ending}", job.ledger(study).display()));
    }
    let seconds = Seconds {
        prepare: choice.prepare,
        choose: choice.seconds,
        judge: began.elapsed().as_secs_f64(),
    };
    let tokens = tokens_of(first, &ground.dataset.pool, &ground.grouped.tokens);
    Ok(job.record((first.len() as u64, tokens), draws, choice.evaluations, seconds))
}

fn choose(study: &StudySettings, ground: &SeedContext<'_>, job: &Job, monitor: &dyn Monitor) -> Result<Choice> {
    let began = Instant::now();
    let prepared = &ground.prepared;
    let plot = &ground.plots[job.plot];
    let free = |draws: Vec<Vec<RowId>>, prepare: f64| Choice {
        draws,
        evaluations: 0,
        seconds: began.elapsed().as_secs_f64(),
        prepare,
    };
    let seed = ground.settings.seed;
    let settings_of = |agent: Method| SelectSettings {
        agent,
        budget: study.budgets[job.plot],
        // Whom it cannot reward is rewarded by the proxy.
        reward_model: if agent.takes_reward_model() {
            ground.settings.reward_model
        } else {
            RewardModelKind::None
        },
        ..ground.settings.clone()
    };
    match &job.source {
        Source::File(path, _) => {
            let rows = external_selections::read(path, ground.dataset)?;
            let (takes, most, unit) = match plot.limit {
                Limit::Rows(most) => (rows.len() as u64, most, "rows"),
                Limit::Tokens(most) => {
                    let tokens = tokens_of(&rows, &ground.dataset.pool, &ground.grouped.tokens);
                    (tokens, most, "tokens")
                }
            };
            if takes > most {
                let expected = format!("no more than the budget's {most} {unit}");
                return Err(Error::data(Place::file(path), expected, takes.to_string()));
            }
            Ok(free(vec![rows], 0.0))
        }
        Source::Method(StudyMethod::Everything) => Ok(free(vec![ground.dataset.pool.clone()], 0.0)),
        Source::Method(StudyMethod::Random) => {
            let draws = match ground.settings.rerank() {
                ProxyKind::Probe => DRAWS,
                ProxyKind::Finetune => 1,
            };
            // The same rows as stand beside a selection of this seed.
            let seed = seed.derive("controls");
            let rows = |i| random_rows(&ground.dataset.pool, &ground.grouped.tokens, plot.limit, seed.index(i));
            Ok(free((0..draws).map(rows).collect(), 0.0))
        }
        Source::Method(StudyMethod::Rule(rule)) => {
            let chosen = by_rule(*rule, ground, plot.limit, seed, monitor)?;
            let prepare = match rule {
                Baseline::Stratified | Baseline::Longest | Baseline::Shortest | Baseline::Frequency => 0.0,
                Baseline::WithoutLabelErrors => prepared.embed + prepared.adapt + prepared.doubt,
                Baseline::KCenter | Baseline::FacilityLocation | Baseline::Similarity | Baseline::Relevance => {
                    prepared.embed
                }
                Baseline::Hardest | Baseline::Easiest | Baseline::Median => {
                    prepared.embed + prepared.adapt + prepared.probe
                }
            };
            let rows = chosen.into_iter().map(|i| ground.dataset.pool[i as usize]).collect();
            Ok(free(vec![rows], prepare))
        }
        Source::Method(StudyMethod::ClusterGreedy) => {
            let settings = settings_of(Method::Greedy);
            searched(study, ground, job, (&settings, &plot.whole.0, &plot.whole.1), monitor)
        }
        Source::Method(StudyMethod::Search(method)) => {
            let settings = settings_of(*method);
            searched(study, ground, job, (&settings, &plot.pool, &plot.features), monitor)
        }
    }
}

fn by_rule(
    rule: Baseline,
    ground: &SeedContext<'_>,
    limit: Limit,
    seed: Seed,
    monitor: &dyn Monitor,
) -> Result<Vec<u32>> {
    let Dataset {
        train,
        validation,
        pool,
        ..
    } = ground.dataset;
    let targets: Vec<u32> = pool
        .iter()
        .map(|&row| {
            if ground.dataset.task.labels.is_empty() {
                0
            } else {
                train.examples[row as usize].target
            }
        })
        .collect();
    let losses = || {
        let all = ground.designs.losses(ground.dataset, &ground.at_everything)?;
        Ok(pool.iter().map(|&row| all[row as usize]).collect())
    };
    let view = View {
        vectors: &ground.grouped.views,
        texts: &|i| train.examples[pool[i] as usize].input.texts(),
        tokens: &ground.grouped.tokens,
        targets: &targets,
        fold_vectors: &ground.grouped.fold_views,
        fold_texts: &|i| validation.examples[ground.folds.reward[i] as usize].input.texts(),
        doubted: &ground.grouped.doubted,
        losses: &losses,
    };
    rule.choose(&view, limit, seed, monitor)
}

/// Lets an agent or a search spend its evaluations; the best of its states on the confirm fold is the choice, as in `select`.
fn searched(
    study: &StudySettings,
    ground: &SeedContext<'_>,
    job: &Job,
    (settings, pool, features): (&SelectSettings, &Pool, &FeatureContext),
    monitor: &dyn Monitor,
) -> Result<Choice> {
    let began = Instant::now();
    let longest = check_episode(settings, pool, &ground.grouped.tokens)?;
    let tuning = &ground.plots[job.plot].tuning;
    let memory = ProbeSettings::GRAM_MEMORY / ground.workers as usize;
    let probe = ground.designs.probe(tuning, settings.reward_metric(), memory)?;
    let data = &ground.dataset.fingerprint;
    let dear = dear_proxy(ground.grouped.target.as_ref(), settings, &ground.folds, data);
    let path = job.ledger(study);
    make_folder_of(&path)?;
    let mut ledger = Ledger::open(&path)?;
    let limits = Limits {
        evaluations: settings.max_evaluations,
        seconds: None,
    };
    let seed = settings.seed;
    let problem = pose(
        pool,
        (&probe, dear.as_ref()),
        &mut ledger,
        (features.clone(), limits, seed),
        monitor,
    )?;
    let found = search(problem, settings, seed)?;
    let rows: Vec<Vec<RowId>> = found.finalists.iter().map(|(state, _)| pool.rows_of(state)).collect();
    if rows.is_empty() {
        return Err(too_short(settings, longest, found.evaluations));
    }
    let judge = Judge::new(&ground.designs, tuning, &ground.at_everything, settings);
    let mut chosen = rows[judge.choose(&rows)?].clone();
    chosen.sort_unstable();
    Ok(Choice {
        draws: vec![chosen],
        evaluations: found.evaluations,
        seconds: found.earlier + began.elapsed().as_secs_f64(),
        prepare: ground.prepared.total(),
    })
}

/// The scores of each draw, one a column.
fn judge(
    study: &StudySettings,
    ground: &SeedContext<'_>,
    job: &Job,
    draws: &[Vec<RowId>],
    monitor: &dyn Monitor,
) -> Result<Vec<Vec<f64>>> {
    let settings = &ground.settings;
    let report = settings.report_metric();
    if let (ProxyKind::Finetune, Some(target)) = (settings.rerank(), &ground.grouped.target) {
        let proxy = target.rung(
            &ground.folds.confirm,
            settings,
            (None, None),
            &ground.dataset.fingerprint,
        );
        let columns = target.columns(&ground.folds.confirm, ground.tests, study.eval_rows, settings);
        return draws
            .iter()
            .map(|rows| {
                let model = proxy.cold(rows, settings.seed.derive("proxy"), monitor)?;
                columns
                    .iter()
                    .map(|(data, rows)| Ok(score(&model, (data, rows), &[report], None, monitor)?[0]))
                    .collect()
            })
            .collect();
    }
    let whole = job.source == Source::Method(StudyMethod::Everything);
    let tuning = if whole {
        &ground.at_everything
    } else {
        &ground.plots[job.plot].tuning
    };
    let at = (tuning.ridge, tuning.temperature_for(settings.reward_metric()));
    let folds: Vec<_> = ground.judged.iter().collect();
    draws
        .iter()
        .map(|rows| {
            let scores = train_and_score(&ground.designs.train, rows, at, &folds, &[report])?;
            Ok(scores.into_iter().map(|scores| scores[0]).collect())
        })
        .collect()
}

fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(Error::io(folder, "create"))
}
