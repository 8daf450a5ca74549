//! A run under way: the data, the folder, and the stages that lead from one to the other.

use std::sync::Arc;

use tamis_nn::Monitor;

use crate::{
    Error, Result,
    budget::{Limit, limit_of},
    data::{self, Dataset, RowId, TaskKind, folds::Folds},
    pipeline::{
        candidates::Candidates,
        context::Context,
        embed::{self, Vectors},
        evidence::Judge,
        gradients::{tokens, vectors},
        portfolio::{Mode, Portfolio},
        prefilter::prefilter,
        probe::{MOMENTS_MEMORY, TunedProbes},
        rerank::{self, Compared},
        responses::Responses,
        search::{Decided, Found, Rewards, check_episode, search, too_short},
        stages::Stages,
        target::Target,
        trainer::trainer_of,
    },
    problem::{Limits, Trajectory},
    records::selection::{Finetuned, Scores},
    scorer::{ask_tell::TrialRunner, ridge::projection::check_labels},
    search::Method,
    settings::select::{JudgeKind, ProxyKind, SelectSettings},
    store::SqliteStore,
    target::row_gradients::GradientEngine,
    workspace::folder,
};

/// What the user gave, read and checked.
pub(crate) struct Read {
    /// With what the task decides.
    pub(crate) settings: SelectSettings,
    pub(crate) dataset: Dataset,
    pub(crate) folds: Folds,
    /// Where rows have responses.
    pub(crate) responses: Option<Responses>,
}

/// Reads and checks what the user gave to a command that asks no trainer, before anything is written.
///
/// # Errors
///
/// If the settings or the data are not as they must be.
pub(crate) fn read(given: &SelectSettings, stages: &Stages<'_>) -> Result<Read> {
    if let Some(rows) = given.prefilter {
        return Err(Error::setting(
            "prefilter",
            "none: only `tamis select` leaves rows aside",
            rows.to_string(),
        )
        .with_hint("leave it out, or name a file of fewer rows with `train`"));
    }
    if given.rerank_top != SelectSettings::default().rerank_top {
        let expected = "the default: only `tamis select` compares the best few";
        return Err(Error::setting("rerank_top", expected, given.rerank_top.to_string()).with_hint("leave it out"));
    }
    if given.trainer.is_some() {
        return Err(
            Error::setting("trainer", "none: only `tamis select` asks one", "one").with_hint(
                "leave it out: here the probe scores, or fine-tunes do with `rerank finetune` or `proxy finetune`",
            ),
        );
    }
    read_with_trainer(given, stages)
}

/// Reads and checks what the user gave, before anything is written.
fn read_with_trainer(given: &SelectSettings, stages: &Stages<'_>) -> Result<Read> {
    given.check()?;
    let mut dataset = stages.run("read", None, || data::read(&given.data, stages.monitor()))?;
    let settings = given.for_task(dataset.task.kind)?;
    check_labels(dataset.task.kind, dataset.task.labels.len())?;
    check_against_pool(&settings, dataset.pool.len())?;
    let responses = if dataset.task.kind == TaskKind::Response {
        stages.run("load", None, || Responses::load(&settings, &mut dataset).map(Some))?
    } else {
        None
    };
    let folds = Folds::split(&dataset.validation, settings.seed.derive("folds"))?;
    check_against_pool(&settings, dataset.pool.len())?;
    if let Some(responses) = &responses {
        limit_of(settings.budget, &tokens(responses, &dataset.pool))?;
    }
    Ok(Read {
        settings,
        dataset,
        folds,
        responses,
    })
}

/// What can be said from the number of rows alone is said before they are embedded.
fn check_against_pool(settings: &SelectSettings, rows: usize) -> Result<()> {
    settings.budget.resolve(rows as u64, u64::MAX)?;
    if let Some(share) = settings.finetune_features {
        let limit = share.resolve(rows as u64, u64::MAX);
        limit.map_err(|error| error.of_setting("finetune_features"))?;
    }
    match settings.clusters {
        Some(clusters) if clusters > rows => Err(Error::setting(
            "clusters",
            format!("from 1 to the {rows} rows of the pool"),
            clusters.to_string(),
        )),
        _ => Ok(()),
    }
}

/// A model is fine-tuned for features on rows that were drawn at random: of a pool that was cut there are not as many as there are rows.
fn check_features_of_drawn(settings: &SelectSettings, dataset: &Dataset) -> Result<()> {
    let (rows, drawn) = (dataset.pool.len() as u64, dataset.random_pool().len() as u64);
    match settings.finetune_features {
        Some(share) if matches!(share.resolve(rows, u64::MAX)?, Limit::Rows(asked) if asked > drawn) => {
            let expected = format!("at most the {drawn} rows that `prefilter` drew at random");
            Err(Error::setting(
                "finetune_features",
                expected,
                format!("`{share}` of {rows} rows"),
            ))
        }
        _ => Ok(()),
    }
}

/// What the program that runs tamis does in its place.
#[derive(Default)]
pub struct Outside<'a> {
    /// Trains on selections, under the name that the setting `trainer` has.
    pub trainer: Option<&'a dyn TrialRunner>,
    /// Makes the passes of the language model whose gradients reward a choice.
    pub engine: Option<Arc<dyn GradientEngine>>,
}

/// A run of `select` from its files on.
pub(crate) struct Session<'a> {
    /// With what the task decides.
    settings: SelectSettings,
    pub(crate) stages: Stages<'a>,
    pub(crate) dataset: Dataset,
    pub(crate) folds: Folds,
    /// Where rows have responses.
    responses: Option<Responses>,
    store: SqliteStore,
    /// Where anything in the run is fine-tuned.
    target: Option<Target>,
    /// Who trains on selections in place of the command of the settings.
    trainer: Option<&'a dyn TrialRunner>,
}

/// The candidates cut into chunks, in every mode that is searched in, and the probe that rewards a choice of them.
pub(crate) struct Prepared<'c> {
    pub(crate) candidates: &'c Candidates,
    /// One, or a portfolio's, that for the AUC first.
    pub(crate) modes: Vec<Mode<'c>>,
    probes: TunedProbes,
}

impl Prepared<'_> {
    fn limit(&self) -> Limit {
        self.modes[0].chunks.limit
    }

    /// The settings of a mode; without one, those that the AUC is for.
    pub(crate) fn settings(&self, mode: Option<usize>) -> &SelectSettings {
        self.modes[mode.unwrap_or(0)].settings
    }

    /// Who scores finished selections, in the metrics of a mode.
    pub(crate) fn judge(&self, mode: Option<usize>) -> Judge<'_> {
        let TunedProbes {
            at_budget,
            at_everything,
        } = &self.probes;
        Judge::new(self.settings(mode), &**at_budget, &**at_everything)
    }
}

/// The choice among the best states of a search.
pub(crate) struct Chosen {
    pub(crate) found: Found,
    /// The rows chosen, in ascending order.
    pub(crate) rows: Vec<data::RowId>,
    /// In which mode and steps they were taken; none where a rule chose them.
    pub(crate) path: Option<(usize, Trajectory)>,
    /// What fine-tuning said, where it chose.
    finetuned: Option<Finetuned>,
}

impl Chosen {
    /// The mode of the search that found it; none where a rule did.
    pub(crate) fn mode(&self) -> Option<usize> {
        self.path.as_ref().map(|(mode, _)| *mode)
    }
}

impl<'a> Session<'a> {
    /// Reads the data, takes the folder or goes on with the run that it holds, and loads the target where one is fine-tuned.
    ///
    /// # Errors
    ///
    /// If the data, the settings or the folder are not as they must be.
    pub(crate) fn open(given: &SelectSettings, outside: &Outside<'a>, monitor: &'a dyn Monitor) -> Result<Self> {
        let stages = Stages::new(monitor);
        let Read {
            settings,
            mut dataset,
            folds,
            mut responses,
        } = read_with_trainer(given, &stages)?;
        let settings = settings.for_selecting(dataset.task.kind, outside.engine.is_none())?;
        if let Some(responses) = &mut responses {
            responses.engine.clone_from(&outside.engine);
        }
        let store = folder::open(&settings, &embed::sources(&settings, &dataset, responses.as_ref())?)?;
        data::write_rejects(&dataset.rejects, &settings.out)?;
        if let (Some(rows), Some(of_model)) = (settings.prefilter, &responses)
            && let Some(kept) = prefilter(rows, Context::new(&settings, &dataset, &folds, Some(of_model), &stages))?
        {
            dataset.keep(&kept.rows, &kept.drawn, kept.tokens);
            check_against_pool(&settings, dataset.pool.len())?;
            check_features_of_drawn(&settings, &dataset)?;
            responses = responses.map(|of_model| of_model.only(&kept.rows));
        }
        // Before hours may go into vectors: what is wrong with the model is said now.
        let at_once = match settings.proxy {
            ProxyKind::Finetune => rayon::current_num_threads(),
            _ => 1,
        };
        let target = Target::of(&settings, &dataset, responses.as_ref(), &stages, at_once)?;
        Ok(Self {
            settings,
            stages,
            dataset,
            folds,
            responses,
            store,
            target,
            trainer: outside.trainer,
        })
    }

    /// What stages are given, with the settings as the user gave them.
    fn given(&self) -> Context<'_> {
        self.context(&self.settings)
    }

    /// What stages are given.
    fn context<'s>(&'s self, settings: &'s SelectSettings) -> Context<'s> {
        Context::new(
            settings,
            &self.dataset,
            &self.folds,
            self.responses.as_ref(),
            &self.stages,
        )
    }

    /// Embeds every split.
    pub(crate) fn embed(&self) -> Result<Vectors> {
        vectors(self.given())
    }

    /// Finds the rows that may be chosen, and decides every `auto` of the settings.
    pub(crate) fn candidates(&self, vectors: Vectors) -> Result<Candidates> {
        Candidates::find(self.given(), self.target.as_ref(), vectors)
    }

    /// Cuts the candidates into chunks, and fits the probe that rewards a choice of them.
    pub(crate) fn prepare<'c>(&self, candidates: &'c Candidates) -> Result<Prepared<'c>> {
        let settings = candidates.settings();
        let context = self.context(settings);
        let limit = match &self.dataset.prefiltered {
            Some(before) => settings.budget.resolve(before.rows, before.tokens)?,
            None => candidates.vectors.limit(settings.budget)?,
        };
        let probes = TunedProbes::new(context, &*candidates.probe, &candidates.vectors, limit)?;
        Ok(Prepared {
            candidates,
            modes: Mode::all(context, candidates, &*probes.at_budget, limit, MOMENTS_MEMORY)?,
            probes,
        })
    }

    /// Lets the agent spend its evaluations.
    pub(crate) fn search(&mut self, prepared: &Prepared<'_>) -> Result<Found> {
        let (candidates, mode) = (prepared.candidates, &prepared.modes[0]);
        let settings = mode.settings;
        let longest = check_episode(settings, &mode.chunks.pool, &candidates.vectors.tokens)?;
        let limits = Limits {
            evaluations: settings.max_evaluations,
            seconds: settings.max_time,
            cost: settings.max_cost,
        };
        let context = Context::new(
            settings,
            &self.dataset,
            &self.folds,
            self.responses.as_ref(),
            &self.stages,
        );
        let trainer = trainer_of(settings, &self.dataset, self.trainer);
        let rewards = Rewards::new(context, &*mode.scorer, self.target.as_ref(), trainer.as_deref());
        let store = &mut self.store;
        let found = self.stages.run("select", Some(settings.max_evaluations), || {
            if settings.agent == Method::Auto {
                let portfolio = Portfolio {
                    context,
                    candidates,
                    modes: &prepared.modes,
                    probe: &*prepared.probes.at_budget,
                    at_everything: &*prepared.probes.at_everything,
                };
                return portfolio.search(store, limits);
            }
            let seed = settings.seed.derive("proxy");
            search(
                rewards.pose(context, &mode.chunks, store, limits, seed)?,
                &mode.chunks,
                settings,
            )
        })?;
        self.stages.add_to_latest(found.earlier_seconds);
        if found.finalists.is_empty() {
            return Err(too_short(settings, longest, found.evaluations));
        }
        Ok(found)
    }

    /// Chooses among the best states by the confirm fold, with the probe or by fine-tuning on each.
    pub(crate) fn rerank(&mut self, mut found: Found, prepared: &Prepared<'_>) -> Result<Chosen> {
        let settings = prepared.candidates.settings();
        let judge = settings.rerank();
        if judge != JudgeKind::Probe {
            found.keep_distinct();
        }
        let mut rows: Vec<Vec<RowId>> = found.finalists.iter().map(|finalist| finalist.rows.clone()).collect();
        let few = rows.len().min(settings.rerank_top);
        let context = Context::new(
            settings,
            &self.dataset,
            &self.folds,
            self.responses.as_ref(),
            &self.stages,
        );
        let compared = Compared {
            finalists: &rows[..few],
            tokens: &prepared.candidates.vectors.tokens,
            limit: prepared.limit(),
        };
        let trainer = trainer_of(settings, &self.dataset, self.trainer);
        let (target, store) = (self.target.as_ref(), &mut self.store);
        let trained = (judge != JudgeKind::Probe).then_some(2 * few as u64);
        let (best, finetuned) = self.stages.run("confirm", trained, || {
            let finetuned = match (judge, target, &trainer) {
                (JudgeKind::Trainer, _, Some(trainer)) => rerank::by_trainer(context, &**trainer, &compared, store)?,
                (JudgeKind::Finetune, Some(target), _) => rerank::by_finetuning(context, target, &compared, store)?,
                _ if found.portfolio.is_some() => return Ok((0, None)),
                _ => return Ok((prepared.judge(None).choose(&rows)?, None)),
            };
            Ok((finetuned.chosen, Some(finetuned)))
        })?;
        let mut chosen = rows.swap_remove(best);
        chosen.sort_unstable();
        if let Some(Decided { record, order }) = &mut found.portfolio {
            record.chosen = order[best] as u64;
        }
        Ok(Chosen {
            path: found.finalists[best].path.clone(),
            rows: chosen,
            found,
            finetuned,
        })
    }

    /// The scores of the choice beside its controls.
    pub(crate) fn evidence(&self, chosen: &Chosen, prepared: &Prepared<'_>) -> Result<Scores> {
        let seed = self.settings.seed.derive("controls");
        let (tokens, limit) = (&prepared.candidates.vectors.tokens, prepared.limit());
        self.stages.run("score", Some(13), || {
            let scores = prepared.judge(chosen.mode()).scores(
                &chosen.rows,
                &self.dataset,
                tokens,
                limit,
                seed,
                self.stages.monitor(),
            )?;
            Ok(Scores {
                finetuned: chosen.finetuned.clone(),
                ..scores
            })
        })
    }
}
