//! The page of a finished run.

use std::{fs, path::Path};

use askama::Template;
use serde::Serialize;
use serde_json::Value;

use crate::{
    Error, Place, Result,
    records::{
        portfolio::{EntrantRecord, PortfolioRecord},
        selection::{ClusterRecord, CurveRecord, MapRecord, Scored, SelectionRecord, VERSION},
        study::break_even,
    },
    report::page::{self, ECHARTS, SCRIPT, STYLE, Track, count, counted, difference, duration, percent, score},
};

/// Labels that are shown.
const LABELS: usize = 20;
/// Clusters that are shown before the reader asks for the others.
const CLUSTERS: usize = 12;
/// Rejected rows that are shown.
const REJECTS: usize = 5;

/// See the template.
#[derive(Template)]
#[template(path = "run.html")]
pub(crate) struct Page<'a> {
    record: &'a SelectionRecord,
    verdict: String,
    /// The share of the pool's rows that was chosen.
    share: f64,
    clusters_taken: usize,
    scores: Vec<ScoreRow>,
    finetuned: Option<FinetunedRow>,
    entrants: Vec<EntrantRow>,
    curse: Curse,
    clusters: Vec<ClusterRow>,
    labels: Vec<LabelRow>,
    stages: Vec<StageRow>,
    total: f64,
    pays: Vec<PaysRow>,
    /// Whether the choice scores clearly below training on everything, and by how much.
    below_everything: Option<String>,
    rejects: Vec<String>,
    drawn: Option<u64>,
    settings: String,
    has_episodes: bool,
    has_loss: bool,
    has_curves: bool,
    curve_metric: String,
    data: String,
}

/// A score beside its controls.
struct ScoreRow {
    name: &'static str,
    note: &'static str,
    metric: String,
    chosen: String,
    random: String,
    sd: String,
    everything: String,
    validation: Option<String>,
    with_validation: Option<String>,
    gain: String,
    spread: String,
    better: &'static str,
    chosen_at: String,
    random_at: String,
    random_bar: String,
    everything_at: String,
    ends: [String; 2],
}

/// A rule or a search of a portfolio.
struct EntrantRow {
    name: String,
    chosen: bool,
    confirm: String,
    behind: String,
    error: String,
    evaluations: String,
}

struct FinetunedRow {
    judge: String,
    chosen: String,
    random: String,
    seeds: usize,
}

/// How much of the gain on the reward fold is gone on the confirm fold, in the same metric.
struct Curse {
    searched: String,
    unseen: String,
    gap: String,
    /// Whether anything is gone at all.
    positive: bool,
}

struct ClusterRow {
    words: String,
    rows: String,
    chosen: String,
    share: String,
    width: String,
}

struct LabelRow {
    label: String,
    pool: String,
    chosen: String,
    validation: String,
    widths: [String; 3],
}

struct StageRow {
    name: String,
    seconds: String,
    width: String,
    peak: Option<String>,
}

struct PaysRow {
    all: String,
    saved: String,
    after: String,
}

impl<'a> Page<'a> {
    pub(crate) fn read(folder: &Path, record: &'a SelectionRecord) -> Result<Self> {
        let map = map(folder)?;
        let curves = curves(folder)?;
        let pool = record.data.read.pool.max(1) as f64;
        let share = record.budget.rows as f64 / pool;
        let total: f64 = record.stages.iter().map(|stage| stage.seconds).sum();
        let drawn = map.as_ref().map(|map| map.rows.x.len() as u64);
        let scored = &record.scores;
        let mut scores = Vec::new();
        if let Some(test) = &scored.test {
            scores.push(ScoreRow::new("Test rows", "seen by nobody", test));
        }
        scores.push(ScoreRow::new(
            "Confirm fold",
            "never searched on; the final choice among few",
            &scored.confirm,
        ));
        scores.push(ScoreRow::new(
            "Confirm fold",
            "in the metric of the reward",
            &scored.confirm_as_reward,
        ));
        scores.push(ScoreRow::new(
            "Reward fold",
            "searched on: too good to be true",
            &scored.reward,
        ));
        let curve_metric = match &record.portfolio {
            Some(portfolio) => &portfolio.last_reward,
            None => &scored.reward.metric,
        };
        let honest = scored.test.as_ref().unwrap_or(&scored.confirm);
        let behind = honest.everything - honest.chosen;
        let data = PlotData {
            words: record.clusters.iter().map(|cluster| &cluster.words[..]).collect(),
            clusters: record
                .clusters
                .iter()
                .map(|cluster| Counts::new(record, cluster))
                .collect(),
            map: map.as_ref(),
            // A portfolio's curve is that of its last search.
            evaluations: match record.portfolio {
                Some(_) => curves.iter().map(CurveRecord::evaluations).max().unwrap_or(0),
                None => record.evaluations,
            },
            metric: readable(curve_metric),
            curves: &curves,
        };
        Ok(Self {
            verdict: record.verdict(),
            share,
            clusters_taken: record.clusters.iter().filter(|cluster| cluster.chosen > 0).count(),
            scores,
            finetuned: scored.finetuned.as_ref().map(|tuned| FinetunedRow {
                judge: tuned.judge(readable),
                chosen: tuned
                    .finalists
                    .get(tuned.chosen)
                    .map_or("none".into(), |&value| score(value)),
                random: score(tuned.random.iter().sum::<f64>() / tuned.random.len().max(1) as f64),
                seeds: tuned.random.len(),
            }),
            entrants: record.portfolio.as_ref().map_or_else(Vec::new, entrant_rows),
            curse: Curse::new(&scored.reward, &scored.confirm_as_reward),
            clusters: cluster_rows(&record.clusters),
            labels: label_rows(record),
            stages: stage_rows(record),
            total,
            pays: pays(total, share, own_finetune(record, share)),
            below_everything: (behind > 2.0 * honest.random_sd).then(|| score(behind)),
            rejects: rejects(folder),
            drawn,
            settings: serde_json::to_string_pretty(&record.settings).unwrap_or_default(),
            has_episodes: curves.iter().any(|line| matches!(line, CurveRecord::Episode { .. })),
            has_loss: curves
                .iter()
                .any(|line| matches!(line, CurveRecord::Episode { loss: Some(_), .. })),
            has_curves: !curves.is_empty(),
            curve_metric: readable(curve_metric),
            data: page::embed(&data),
            record,
        })
    }
}

/// The entrants, the best first.
fn entrant_rows(portfolio: &PortfolioRecord) -> Vec<EntrantRow> {
    let best = portfolio.entrants[portfolio.best as usize].confirm;
    let row = |(place, entrant): (usize, &EntrantRecord)| {
        let row = EntrantRow {
            name: entrant.name.clone(),
            chosen: place as u64 == portfolio.chosen,
            confirm: score(entrant.confirm),
            behind: score(best - entrant.confirm),
            error: entrant.standard_error.map_or_else(|| "unknown".into(), score),
            evaluations: count(entrant.evaluations),
        };
        (entrant.confirm, row)
    };
    let mut rows: Vec<(f64, EntrantRow)> = portfolio.entrants.iter().enumerate().map(row).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    rows.into_iter().map(|(_, row)| row).collect()
}

impl ScoreRow {
    fn new(name: &'static str, note: &'static str, scored: &Scored) -> Self {
        let &Scored {
            chosen,
            random_mean,
            random_sd,
            everything,
            ..
        } = scored;
        let (low, high) = (random_mean - random_sd, random_mean + random_sd);
        let track = Track::around([chosen, low, high, everything].into_iter());
        Self {
            name,
            note,
            metric: readable(&scored.metric),
            chosen: score(chosen),
            random: score(random_mean),
            sd: score(random_sd),
            everything: score(everything),
            validation: scored.validation.map(score),
            with_validation: scored.with_validation.map(score),
            gain: difference(chosen - random_mean),
            spread: format!("{:+.1}", scored.spread()).replace('-', "\u{2212}"),
            better: match scored.spread() {
                spread if spread >= 2.0 => "better",
                spread if spread <= -2.0 => "worse",
                _ => "alike",
            },
            chosen_at: track.mark(chosen),
            random_at: track.mark(random_mean),
            random_bar: track.bar(low, high),
            everything_at: track.mark(everything),
            ends: track.ends(),
        }
    }
}

impl Curse {
    fn new(reward: &Scored, confirm: &Scored) -> Self {
        let (searched, unseen) = (reward.chosen - reward.random_mean, confirm.chosen - confirm.random_mean);
        Self {
            searched: difference(searched),
            unseen: difference(unseen),
            gap: score((searched - unseen).abs()),
            positive: searched > unseen,
        }
    }
}

/// A metric's name as it is read.
fn readable(metric: &str) -> String {
    metric.replace('_', " ").replace("f1", "F1")
}

/// The clusters from which most was taken first.
fn cluster_rows(clusters: &[ClusterRecord]) -> Vec<ClusterRow> {
    let mut sorted: Vec<&ClusterRecord> = clusters.iter().collect();
    sorted.sort_by_key(|cluster| (std::cmp::Reverse(cluster.chosen), cluster.rows));
    sorted
        .into_iter()
        .map(|cluster| {
            let share = cluster.chosen as f64 / cluster.rows.max(1) as f64;
            ClusterRow {
                words: cluster.words.join(" "),
                rows: count(cluster.rows),
                chosen: count(cluster.chosen),
                share: percent(share),
                width: format!("width:{:.1}%", 100.0 * share),
            }
        })
        .collect()
}

/// The labels with the most rows in pool or choice first.
fn label_rows(record: &SelectionRecord) -> Vec<LabelRow> {
    let mut labels: Vec<_> = record.labels.iter().collect();
    labels.sort_by(|a, b| b.pool.max(b.chosen).total_cmp(&a.pool.max(a.chosen)));
    labels.truncate(LABELS);
    let most = labels
        .iter()
        .flat_map(|label| [label.pool, label.chosen, label.validation])
        .fold(f64::MIN_POSITIVE, f64::max);
    labels
        .into_iter()
        .map(|label| LabelRow {
            label: label.label.clone(),
            pool: percent(label.pool),
            chosen: percent(label.chosen),
            validation: percent(label.validation),
            widths: [label.pool, label.chosen, label.validation]
                .map(|share| format!("width:{:.2}%", 100.0 * share / most)),
        })
        .collect()
}

fn stage_rows(record: &SelectionRecord) -> Vec<StageRow> {
    let most = record
        .stages
        .iter()
        .map(|stage| stage.seconds)
        .fold(f64::MIN_POSITIVE, f64::max);
    record
        .stages
        .iter()
        .map(|stage| StageRow {
            name: stage.name.clone(),
            seconds: duration(stage.seconds),
            width: format!("width:{:.2}%", 100.0 * stage.seconds / most),
            peak: stage.peak_bytes.map(page::bytes),
        })
        .collect()
}

/// After how many fine-tunes choosing has paid for itself: for a fine-tune on everything of the length that the run's own fine-tunes
/// tell, where it made some, and of several other lengths.
fn pays(overhead: f64, share: f64, own: Option<f64>) -> Vec<PaysRow> {
    let own = own.map(|seconds| (format!("{} (as fine-tuned here)", duration(seconds)), seconds));
    let others = [
        ("1 minute", 60.0),
        ("10 minutes", 600.0),
        ("1 hour", 3600.0),
        ("10 hours", 36_000.0),
    ];
    own.into_iter()
        .chain(others.map(|(name, seconds)| (name.to_owned(), seconds)))
        .map(|(all, seconds)| PaysRow {
            all,
            saved: duration(saved(seconds, share)),
            after: break_even(overhead, saved(seconds, share))
                .map_or("never".into(), |n| counted(n, "fine-tune", "fine-tunes")),
        })
        .collect()
}

/// Wall-clock seconds of a fine-tune on everything, from those on this share of it that compared the finalists side by side.
fn own_finetune(record: &SelectionRecord, share: f64) -> Option<f64> {
    let tuned = record.scores.finetuned.as_ref()?;
    let stage = record.stages.iter().find(|stage| stage.name == "confirm")?;
    let each = stage.seconds / (tuned.finalists.len() + tuned.random.len()) as f64;
    (share > 0.0).then_some(each / share)
}

/// What training on a share of the rows saves of these seconds.
fn saved(seconds: f64, share: f64) -> f64 {
    (1.0 - share).max(0.0) * seconds
}

/// The map, where the run has one.
fn map(folder: &Path) -> Result<Option<MapRecord>> {
    let path = folder.join("map.json");
    if path.exists() {
        crate::report::read(&path, VERSION).map(Some)
    } else {
        Ok(None)
    }
}

fn curves(folder: &Path) -> Result<Vec<CurveRecord>> {
    let path = folder.join("metrics.jsonl");
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(Vec::new());
    };
    text.lines()
        .enumerate()
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|error| {
                Error::data(
                    Place::line(&path, i as u64 + 1),
                    "a point of a learning curve",
                    error.to_string(),
                )
            })
        })
        .collect()
}

/// The first of the rows that could not be used; the file is there for the user, and no page fails for it.
fn rejects(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("rejects.jsonl")).unwrap_or_default();
    text.lines()
        .take(REJECTS)
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|reject| {
            let text = |name: &str| reject[name].as_str().unwrap_or_default().to_owned();
            format!("{}, line {}: {}", text("file"), reject["line"], text("reason"))
        })
        .collect()
}

/// What the page's script draws.
#[derive(Serialize)]
struct PlotData<'a> {
    words: Vec<&'a [String]>,
    clusters: Vec<Counts<'a>>,
    map: Option<&'a MapRecord>,
    evaluations: u64,
    metric: String,
    curves: &'a [CurveRecord],
}

/// A cluster's rows, and the labels with most of them.
#[derive(Serialize)]
struct Counts<'a> {
    rows: u64,
    chosen: u64,
    labels: Vec<(&'a str, u64)>,
}

impl<'a> Counts<'a> {
    fn new(record: &'a SelectionRecord, cluster: &ClusterRecord) -> Self {
        let mut labels: Vec<(&str, u64)> = record
            .labels
            .iter()
            .map(|label| label.label.as_str())
            .zip(cluster.labels.iter().copied())
            .filter(|(_, rows)| *rows > 0)
            .collect();
        labels.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
        labels.truncate(3);
        Self {
            rows: cluster.rows,
            chosen: cluster.chosen,
            labels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::selection::{
        BudgetRecord, DataRecord, Finetuned, LabelRecord, MAP_SIDE, MapCluster, MapRows, MapSample, ReadRecord, Scores,
        StageRecord,
    };

    const EVIL: &str = "</script><img src=x onerror=\"document.title='owned'\">";

    fn scored(chosen: f64) -> Scored {
        Scored {
            metric: "macro_f1".into(),
            chosen,
            random_mean: 0.5,
            random_sd: 0.01,
            everything: 0.6,
            validation: Some(0.58),
            with_validation: Some(0.57),
        }
    }

    /// A run of two clusters whose words, labels and samples all hold markup.
    fn record() -> SelectionRecord {
        SelectionRecord {
            version: VERSION,
            tamis: "0.1.0".into(),
            agent: "dqn".into(),
            seed: 1,
            evaluations: 5000,
            failures: 0,
            budget: BudgetRecord { rows: 50, tokens: 600 },
            rows: Vec::new(),
            portfolio: None,
            scores: Scores {
                reward: scored(0.7),
                confirm: scored(0.55),
                confirm_as_reward: scored(0.56),
                test: Some(scored(0.53)),
                finetuned: None,
            },
            labels: vec![LabelRecord {
                label: EVIL.into(),
                pool: 1.0,
                chosen: 1.0,
                validation: 1.0,
            }],
            clusters: [40, 10]
                .map(|chosen| ClusterRecord {
                    rows: 500,
                    chosen,
                    words: vec![EVIL.into()],
                    labels: vec![500],
                    nearest: Vec::new(),
                })
                .to_vec(),
            data: DataRecord {
                read: ReadRecord {
                    task: None,
                    train: 1000,
                    pool: 1000,
                    prefiltered: None,
                    duplicates: 3,
                    leaks: Default::default(),
                    in_test: 0,
                    answers: None,
                    rejects: 0,
                },
                files: Default::default(),
                reward_fold: 100,
                confirm_fold: 100,
                test: 200,
                domain_auc: 0.5,
                candidates: 1000,
                label_errors: 0,
                truncated: 0,
            },
            stages: vec![StageRecord {
                name: "select".into(),
                seconds: 90.0,
                peak_bytes: Some(1 << 30),
            }],
            command: format!("tamis select --train '{EVIL}'"),
            settings: serde_json::json!({ "out": EVIL }),
        }
    }

    fn map() -> MapRecord {
        let cluster = |x| MapCluster {
            x,
            y: MAP_SIDE / 2,
            radius: 900,
            samples: vec![MapSample {
                text: EVIL.into(),
                label: Some(EVIL.into()),
            }],
        };
        MapRecord {
            version: VERSION,
            clusters: vec![cluster(1000), cluster(3000)],
            rows: MapRows {
                x: vec![1000, 3000],
                y: vec![2000, 2000],
                chosen: vec![1],
            },
        }
    }

    #[test]
    fn nothing_that_the_data_say_becomes_markup() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(
            folder.path().join("map.json"),
            serde_json::to_string(&map()).expect("JSON"),
        )
        .expect("writes");
        fs::write(
            folder.path().join("rejects.jsonl"),
            format!("{}\n", serde_json::json!({ "file": EVIL, "line": 1, "reason": "bad" })),
        )
        .expect("writes");
        let html = Page::read(folder.path(), &record())
            .expect("reads")
            .render()
            .expect("a page");
        // The library's own code is left out: it speaks of markup.
        let ours = html.replace(ECHARTS, "");
        assert!(!ours.contains("<img") && ours.contains("&#60;img"));
        // The only scripts are ours: the data, the library and what draws.
        assert_eq!(html.matches("</script>").count(), 3);
    }

    #[test]
    fn a_portfolios_entrants_stand_by_what_they_are_worth_and_the_chosen_one_is_marked() {
        let entrant = |name: &str, confirm| EntrantRecord {
            name: name.into(),
            mode: None,
            evaluations: 0,
            confirm,
            standard_error: (confirm < 0.6).then_some(0.02),
        };
        let record = SelectionRecord {
            portfolio: Some(PortfolioRecord {
                metric: "soft_accuracy".into(),
                last_reward: "log_loss".into(),
                entrants: vec![
                    entrant("random", 0.5),
                    entrant("frequency", 0.59),
                    entrant("similarity", 0.6),
                ],
                best: 2,
                simplest: 1,
                chosen: 1,
            }),
            ..record()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let page = Page::read(folder.path(), &record).expect("reads");
        let shown: Vec<_> = page
            .entrants
            .iter()
            .map(|row| (&*row.name, &*row.behind, &*row.error, row.chosen))
            .collect();
        assert_eq!(
            shown,
            [
                ("similarity", "0.0000", "unknown", false),
                ("frequency", "0.0100", "0.0200", true),
                ("random", "0.1000", "0.0200", false)
            ]
        );
        let html = page.render().expect("a page");
        assert!(
            html.contains("<b>frequency</b>")
                && html.contains("frequency is the simplest that the confirm fold cannot tell")
        );
        // A rule searched on nothing, so nothing was won by searching.
        assert!(!html.contains("winner&#39;s curse") && !html.contains("winner's curse"));
    }

    #[test]
    fn the_page_does_the_arithmetic_that_it_shows() {
        let folder = tempfile::tempdir().expect("a folder");
        let record = record();
        let page = Page::read(folder.path(), &record).expect("reads");
        // The choice is 0.2 above random rows on the reward fold and 0.06 on the confirm fold.
        assert_eq!(
            (
                page.curse.searched.as_str(),
                page.curse.unseen.as_str(),
                page.curse.gap.as_str()
            ),
            ("+0.2000", "+0.0600", "0.1400")
        );
        // On the test rows it is 0.07 below everything, which is more than two standard deviations of 0.01.
        assert_eq!(page.below_everything.as_deref(), Some("0.0700"));
        // On them 200 validation rows make 0.58, the choice 0.53; without a test file it is the reward fold's on the confirm fold.
        let hint = record.validation_teaches_more().expect("a hint");
        assert!(
            hint.starts_with("The 200 validation rows alone make 0.5800 there"),
            "{hint}"
        );
        let mut untested = record.clone();
        untested.scores.test = None;
        untested.scores.confirm.chosen = 0.57;
        let hint = untested.validation_teaches_more().expect("a hint");
        assert!(
            hint.starts_with("The 100 validation rows of the reward fold alone make 0.5800 there"),
            "{hint}"
        );
        untested.scores.confirm.chosen = 0.58;
        assert_eq!(untested.validation_teaches_more(), None);
        // 100 rows choose, which is enough where others judge; of 25 an accuracy has a standard error of 0.5 / 5.
        assert_eq!(record.caution(), None);
        assert!(untested.caution().expect("a word").starts_with("The confirm fold also"));
        untested.data.confirm_fold = 25;
        assert!(untested.caution().expect("a word").ends_with("by up to 0.10."));
        assert_eq!(page.scores[0].spread, "+3.0");
        // 5% of the rows save 57 s of a minute; 90 s are paid for by two of them, and by one of anything longer.
        let after: Vec<&str> = page.pays.iter().map(|row| row.after.as_str()).collect();
        assert_eq!(after, ["2 fine-tunes", "1 fine-tune", "1 fine-tune", "1 fine-tune"]);
        assert_eq!(page.pays[0].saved, "57.0 s");
        assert_eq!(break_even(1.0, saved(60.0, 1.0)), None);
    }

    #[test]
    fn labels_that_nothing_judges_or_only_spaces_tell_apart_have_a_word() {
        let label = |name: &str, pool, validation| LabelRecord {
            label: name.into(),
            pool,
            chosen: pool,
            validation,
        };
        let mut record = record();
        record.labels = vec![label("good", 0.6, 0.5), label("bad", 0.4, 0.5)];
        assert_eq!((record.labels_unjudged(), record.labels_alike()), (None, None));
        record
            .labels
            .extend([label("-1", 0.0125, 0.0), label("Good ", 0.02, 0.0)]);
        let word = record.labels_unjudged().expect("a word");
        assert!(
            word.starts_with("No validation row has the label `-1`, `Good ` (3.2% of the pool)."),
            "{word}"
        );
        let word = record.labels_alike().expect("a word");
        assert!(
            word.starts_with("The labels `good` and `Good ` are told apart"),
            "{word}"
        );
        record.labels.extend(["x", "y"].map(|name| label(name, 0.0, 0.0)));
        let word = record.labels_unjudged().expect("a word");
        assert!(
            word.starts_with("No validation row has the label `-1`, `Good `, `x` or 1 more ("),
            "{word}"
        );
    }

    #[test]
    fn the_runs_own_fine_tunes_say_what_one_on_everything_takes() {
        let mut record = record();
        assert_eq!(own_finetune(&record, 0.05), None);
        record.scores.finetuned = Some(Finetuned {
            metric: "accuracy".into(),
            finalists: vec![0.5],
            chosen: 0,
            random: vec![0.4],
        });
        record.stages.push(StageRecord {
            name: "confirm".into(),
            seconds: 6.0,
            peak_bytes: None,
        });
        // Two fine-tunes on 5% took 6 s, so one on everything takes 60 s.
        let own = own_finetune(&record, 0.05).expect("two were made");
        assert!((own - 60.0).abs() < 1e-9, "{own}");
        let rows = pays(90.0, 0.05, Some(own));
        assert_eq!((rows.len(), rows[0].after.as_str()), (5, "2 fine-tunes"));
    }
}
