//! Learning curves: when a search found its best states, and what its agent reported along the way.
//!
//! What is kept is bounded: improvements of the best full state only, and of the episodes every one, then every second, every
//! fourth and so on, so that at most [`EPISODES_KEPT`] are held, evenly spread over the search.
//!
//! Seconds count from the beginning of the search, over all starts of a run that was killed. How far the search was at which second
//! is noted in the ledger; while a run that goes on repeats what an earlier start did, it reads that start's seconds from there.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::{Result, agents::TrainEvent, env::pool::State, store::ScoreStore};

/// The most episodes that are kept.
pub const EPISODES_KEPT: usize = 4096;

/// After how many seconds at the latest the ledger is told how far the search is.
const NOTED_EVERY: f64 = 1.0;

/// A full state that scored higher than all before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Improvement {
    /// Evaluations spent when its score was known. States that are scored side by side are known together.
    pub evaluations: u64,
    /// Seconds since the search began.
    pub seconds: f64,
    /// Its score on the reward fold; higher is better.
    pub reward: f64,
    /// The state.
    pub state: State,
}

/// What an agent reported after an episode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Episode {
    /// Evaluations spent by the end of the episode.
    pub evaluations: u64,
    /// Seconds since the search began.
    pub seconds: f64,
    /// The report.
    pub event: TrainEvent,
}

/// The learning curves of one search.
#[derive(Debug, Clone)]
pub struct Curve {
    began: f64,
    improvements: Vec<Improvement>,
    episodes: Vec<Episode>,
    /// Of how many episodes one is kept.
    stride: u64,
    evaluations: u64,
    timeline: Timeline,
    /// When this start of the search began.
    read: Instant,
    /// What this search's moments are filed under.
    scope: String,
    noted: f64,
}

impl Curve {
    /// The curves of a search that begins, or goes on; `scope` tells it apart from others of the same ledger.
    pub(crate) fn read(ledger: &mut dyn ScoreStore, scope: &str) -> Result<Self> {
        // A ledger without a score holds at most what was left by a run that ended before its search.
        let there = if ledger.is_empty() { None } else { ledger.meta("began")? };
        let began = if let Some(began) = there.and_then(|text| text.parse().ok()) {
            began
        } else {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            ledger.set_meta("began", &now.as_secs_f64().to_string())?;
            now.as_secs_f64()
        };
        let timeline = Timeline::new(ledger.timestamps(scope)?);
        Ok(Self {
            began,
            improvements: Vec::new(),
            episodes: Vec::new(),
            stride: 1,
            evaluations: 0,
            noted: timeline.before,
            read: Instant::now(),
            timeline,
            scope: scope.to_owned(),
        })
    }

    /// When the search began, in seconds since 1970 (UTC): that of the first start of a run that was killed.
    pub fn began(&self) -> f64 {
        self.began
    }

    /// Every improvement of the best full state, in the order found; rewards rise strictly, and so do evaluations.
    pub fn improvements(&self) -> &[Improvement] {
        &self.improvements
    }

    /// The episodes that are kept, in their order: all of them, or every 2nd, 4th, ..., so that they are at most
    /// [`EPISODES_KEPT`]. None where the method has no episodes to report.
    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// Seconds of the search over all starts of the run, as far as they are noted: up to its end, once it is over.
    pub fn seconds(&self) -> f64 {
        self.noted
    }

    /// Those of them that earlier starts took, less what this one took to repeat them.
    pub fn earlier_seconds(&self) -> f64 {
        (self.seconds() - self.read.elapsed().as_secs_f64()).max(0.0)
    }

    /// Seconds of the search by now over all starts; while a start repeats an earlier one, what that one took.
    pub(crate) fn now(&mut self) -> f64 {
        self.timeline.seconds(self.evaluations)
    }

    /// So many evaluations are spent by now.
    pub(crate) fn spent(&mut self, evaluations: u64, ledger: &mut dyn ScoreStore) {
        self.evaluations = evaluations;
        let seconds = self.now();
        if seconds - self.noted >= NOTED_EVERY {
            self.note(seconds, ledger);
        }
    }

    /// A full state has this score on the reward fold; it counts if no other had as much.
    pub(crate) fn offer(&mut self, reward: f64, state: &State, ledger: &mut dyn ScoreStore) {
        if self.improvements.last().is_some_and(|best| reward <= best.reward) {
            return;
        }
        // Of several that were scored side by side only the best is an improvement.
        self.improvements.pop_if(|best| best.evaluations == self.evaluations);
        let seconds = self.now();
        self.note(seconds, ledger);
        self.improvements.push(Improvement {
            evaluations: self.evaluations,
            seconds,
            reward,
            state: state.clone(),
        });
    }

    /// An agent has finished an episode.
    pub(crate) fn episode(&mut self, event: &TrainEvent) {
        let kept = |event: &TrainEvent, stride: u64| event.episode.saturating_sub(1).is_multiple_of(stride);
        if !kept(event, self.stride) {
            return;
        }
        if self.episodes.len() == EPISODES_KEPT {
            self.stride *= 2;
            self.episodes.retain(|episode| kept(&episode.event, self.stride));
            if !kept(event, self.stride) {
                return;
            }
        }
        let seconds = self.now();
        self.episodes.push(Episode {
            evaluations: self.evaluations,
            seconds,
            event: *event,
        });
    }

    /// The search is over.
    pub(crate) fn finish(&mut self, ledger: &mut dyn ScoreStore) {
        let seconds = self.now();
        self.note(seconds, ledger);
    }

    /// Tells the ledger how far the search is, unless an earlier start did.
    fn note(&mut self, seconds: f64, ledger: &mut dyn ScoreStore) {
        if self.timeline.is_new(self.evaluations) {
            self.noted = seconds;
            ledger.record_timestamp(&self.scope, self.evaluations, seconds);
        }
    }
}

/// How far a search was at which second, over all its starts.
#[derive(Debug, Clone)]
struct Timeline {
    /// What earlier starts noted: evaluations spent, and seconds since the search began; both rise.
    earlier: Vec<(u64, f64)>,
    /// Seconds that earlier starts took.
    before: f64,
    /// When this start went beyond what earlier ones noted.
    began: Instant,
}

impl Timeline {
    fn new(earlier: Vec<(u64, f64)>) -> Self {
        Self {
            before: earlier.last().map_or(0.0, |last| last.1),
            began: Instant::now(),
            earlier,
        }
    }

    fn is_new(&self, evaluations: u64) -> bool {
        self.earlier.last().is_none_or(|&(last, _)| evaluations > last)
    }

    /// The seconds at which so many evaluations were spent; now, if no earlier start came so far. Between two moments that were
    /// noted, time is taken to have passed evenly.
    fn seconds(&mut self, evaluations: u64) -> f64 {
        let next = self.earlier.partition_point(|&(at, _)| at < evaluations);
        let Some(&(at, seconds)) = self.earlier.get(next) else {
            return self.before + self.began.elapsed().as_secs_f64();
        };
        self.began = Instant::now();
        let (from, since) = next.checked_sub(1).map_or((0, 0.0), |last| self.earlier[last]);
        let missing = (at - evaluations) as f64 / (at - from).max(1) as f64;
        seconds - (seconds - since) * missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SqliteStore;

    fn event(episode: u64) -> TrainEvent {
        TrainEvent {
            episode,
            steps: episode,
            episode_return: 0.0,
            loss: 0.0,
            epsilon: 0.0,
            agreement: f64::NAN,
        }
    }

    fn curve() -> (tempfile::TempDir, SqliteStore, Curve) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut ledger = SqliteStore::open(&folder.path().join("ledger.sqlite")).expect("opens");
        let curve = Curve::read(&mut ledger, "toy").expect("begins");
        (folder, ledger, curve)
    }

    #[test]
    fn however_many_episodes_there_are_some_thousand_evenly_spread_ones_are_kept() {
        let (_folder, _ledger, mut curve) = curve();
        (1..=20_000).for_each(|episode| curve.episode(&event(episode)));
        // 20,000 episodes: every 8th, from the first on.
        let kept: Vec<u64> = curve.episodes().iter().map(|episode| episode.event.episode).collect();
        assert_eq!(kept, (1..=20_000).step_by(8).collect::<Vec<u64>>());
    }

    #[test]
    fn earlier_starts_tell_when_it_was() {
        let mut timeline = Timeline::new(vec![(10, 2.0), (30, 6.0)]);
        // 5 of the first 10: half of 2 s; 15 of 10..30: 2 s and a quarter of 4 s.
        assert_eq!([5, 10, 15, 30].map(|at| timeline.seconds(at)), [1.0, 2.0, 3.0, 6.0]);
        assert!(timeline.seconds(31) >= 6.0);
        assert!(timeline.is_new(31) && !timeline.is_new(30));
    }

    #[test]
    fn a_search_that_goes_on_tells_the_same_seconds_of_what_it_repeats() {
        let (_folder, mut ledger, mut first) = curve();
        let state = crate::search::toy::Toy::new(3).pool(2).empty();
        let told = |curve: &mut Curve, ledger: &mut dyn ScoreStore| {
            for (evaluations, reward) in [(4, 0.5), (4, 0.6), (9, 0.6), (12, 0.7)] {
                curve.spent(evaluations, ledger);
                curve.offer(reward, &state, ledger);
            }
            curve.spent(15, ledger);
            curve.finish(ledger);
            let tell = |best: &Improvement| (best.evaluations, best.reward, best.seconds);
            curve.improvements().iter().map(tell).collect::<Vec<_>>()
        };
        let there = told(&mut first, &mut ledger);
        assert_eq!(there.iter().map(|best| best.0).collect::<Vec<_>>(), [4, 12]);
        ledger.record([0; 16], 0.5, 0.1).expect("records");
        ledger.commit().expect("commits");
        let mut second = Curve::read(&mut ledger, "toy").expect("goes on");
        assert_eq!(second.began(), first.began());
        assert_eq!(told(&mut second, &mut ledger), there);
        assert_eq!(second.seconds(), first.seconds());
        assert!(second.seconds() > 0.0);
    }
}
