//! A command that runs in a thread of its own, while Python hears of its progress, trains on its trials, and may stop it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
};
use tamis::{
    Error, Matrix, Monitor, Result,
    commands::Outside,
    scorer::ask_tell::{Tell, Told, Trial, TrialRunner},
    target::row_gradients::{GradientEngine, Sequence},
    unwind::unless_it_panics,
};
use tamis_cli::{Invocation, Outcome};
use tamis_nn::decoder::{GradientSketch, Projection, Sides};

use crate::errors::Failure;

/// How often somebody who waits looks whether to stop.
const TICK: Duration = Duration::from_millis(50);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a command tells Python.
enum Event {
    Warning(String),
    Round(Vec<Trial>),
    /// Rows whose features are asked for, and whether sketches belong to them.
    Features(Vec<Sequence>, bool),
    Done(std::result::Result<Outcome, Failure>),
}

/// How far a stage is.
struct Stage {
    name: String,
    done: u64,
    total: Option<u64>,
    note: String,
    began: Instant,
}

/// What the thread of a command and Python share.
#[derive(Default)]
struct Shared {
    stage: Mutex<Option<Stage>>,
    /// What features are made with.
    sketch: Mutex<Option<GradientSketch>>,
    stop: AtomicBool,
}

/// The command's side: tells of progress, hands trials out, hears of scores and of a wish to stop.
struct Ours {
    shared: Arc<Shared>,
    events: Sender<Event>,
    warn: Box<dyn Fn(&str) -> String + Send + Sync>,
    told: Mutex<Receiver<Message>>,
}

/// What came of the trial at a place of the round; whoever tells it waits until it is filed, or hears by a closed channel that it came to
/// nothing.
type Message = (usize, Told, Sender<()>);

impl Monitor for Ours {
    fn begin(&self, name: &str, total: Option<u64>) {
        *locked(&self.shared.stage) = Some(Stage {
            name: name.to_owned(),
            done: 0,
            total,
            note: String::new(),
            began: Instant::now(),
        });
    }

    fn advance(&self, steps: u64) {
        if let Some(stage) = &mut *locked(&self.shared.stage) {
            stage.done += steps;
        }
    }

    fn note(&self, text: &str) {
        if let Some(stage) = &mut *locked(&self.shared.stage) {
            text.clone_into(&mut stage.note);
        }
    }

    fn warn(&self, text: &str) {
        // Where nobody listens any more, nobody is told.
        let _ = self.events.send(Event::Warning((self.warn)(text)));
    }

    fn end(&self) {
        *locked(&self.shared.stage) = None;
    }

    fn cancelled(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}

impl TrialRunner for Ours {
    fn run(&self, round: &[Trial], monitor: &dyn Monitor, tell: &mut Tell<'_>) -> Result<()> {
        if self.events.send(Event::Round(round.to_vec())).is_err() {
            return Err(Error::Interrupted);
        }
        let told = locked(&self.told);
        let mut waiting: Vec<bool> = vec![true; round.len()];
        while waiting.contains(&true) {
            match told.recv_timeout(TICK) {
                Ok((place, what, filed)) => {
                    waiting[place] = false;
                    tell(place, what)?;
                    // Where nobody waits any more, nobody is told.
                    let _ = filed.send(());
                }
                Err(RecvTimeoutError::Timeout) => monitor.proceed()?,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Interrupted),
            }
        }
        Ok(())
    }
}

/// Asks Python for the features of rows.
struct Features {
    name: String,
    shared: Arc<Shared>,
    events: Sender<Event>,
    made: Mutex<Receiver<Matrix>>,
}

impl GradientEngine for Features {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn pass(&self, rows: &[Sequence], sketch: Option<&GradientSketch>, monitor: &dyn Monitor) -> Result<Matrix> {
        if let Some(sketch) = sketch {
            locked(&self.shared.sketch).get_or_insert_with(|| sketch.clone());
        }
        let asked = Event::Features(rows.to_vec(), sketch.is_some());
        if self.events.send(asked).is_err() {
            return Err(Error::Interrupted);
        }
        let made = locked(&self.made);
        loop {
            match made.recv_timeout(TICK) {
                Ok(matrix) => return Ok(matrix),
                Err(RecvTimeoutError::Timeout) => monitor.proceed()?,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Interrupted),
            }
        }
    }
}

/// A monitor that hears of Python's signals, for short work on Python's own thread.
#[derive(Default)]
pub(crate) struct Signals(AtomicBool);

impl Monitor for Signals {
    fn begin(&self, _stage: &str, _total: Option<u64>) {}
    fn advance(&self, _steps: u64) {
        Python::attach(|py| {
            if py.check_signals().is_err() {
                self.0.store(true, Ordering::Relaxed);
            }
        });
    }
    fn note(&self, _text: &str) {}
    fn end(&self) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far a stage is: its name, steps done, steps in all where they are known, a word on how it does, seconds so far.
type Progress = (String, u64, Option<u64>, String, f64);

/// A linear layer's name, where its numbers begin, how many a side has, and its two matrices.
type SketchedLayer = (String, usize, usize, Vec<u8>, Vec<u8>);

/// A command under way.
#[pyclass]
pub(crate) struct Job {
    shared: Arc<Shared>,
    events: Mutex<Receiver<Event>>,
    tells: Sender<Message>,
    made: Sender<Matrix>,
    /// Which trials of the round that was handed out have no score yet.
    waiting: Mutex<Vec<bool>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Job {
    /// Nobody hears of it any more: a search that was left in the middle stops by itself.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

#[pymethods]
impl Job {
    /// Reads the arguments of a command and starts it; where it `asks`, trials are trained on by Python in place of a command, and where
    /// `features` have a name, those of rows of responses are made by Python.
    #[new]
    fn new(py: Python<'_>, arguments: Vec<String>, asks: bool, features: Option<String>) -> PyResult<Self> {
        let invocation = Invocation::read(&arguments)
            .map_err(|error| Failure::of_library(&error, &tamis_cli::messages("select")).into_exception(py))?;
        let messages = invocation.messages().clone();
        let (events, heard) = mpsc::channel();
        let (tells, told) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let (made, numbers) = mpsc::channel();
        let engine = features.map(|name| {
            let (shared, events) = (Arc::clone(&shared), events.clone());
            let made = Mutex::new(numbers);
            Arc::new(Features {
                name,
                shared,
                events,
                made,
            }) as Arc<dyn GradientEngine>
        });
        let ours = Ours {
            shared: Arc::clone(&shared),
            events: events.clone(),
            warn: Box::new({
                let messages = messages.clone();
                move |text| messages.text(text)
            }),
            told: Mutex::new(told),
        };
        let thread = std::thread::spawn(move || {
            let outside = Outside {
                trainer: asks.then_some(&ours as &dyn TrialRunner),
                engine,
            };
            let done = match unless_it_panics(|| invocation.run(&outside, &ours)) {
                Ok(Ok(outcome)) => Ok(outcome),
                Ok(Err(error)) => Err(Failure::of(&error, &messages)),
                Err(said) => Err(Failure::other(format!("tamis gave up: {said}"))),
            };
            // Where nobody listens any more, nobody is told.
            let _ = events.send(Event::Done(done));
        });
        Ok(Self {
            shared,
            events: Mutex::new(heard),
            tells,
            made,
            waiting: Mutex::default(),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What the command says next, as its kind and its content; None where it says nothing for so many seconds.
    fn next<'py>(&self, py: Python<'py>, seconds: f64) -> PyResult<Option<(&'static str, Bound<'py, PyAny>)>> {
        let limit = Duration::from_secs_f64(seconds.clamp(0.0, 3600.0));
        let heard = py.detach(|| locked(&self.events).recv_timeout(limit));
        py.check_signals()?;
        let (kind, content) = match heard {
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Err(PyRuntimeError::new_err("this command has ended")),
            Ok(Event::Warning(text)) => ("warning", text.into_pyobject(py)?.into_any()),
            Ok(Event::Round(round)) => {
                *locked(&self.waiting) = vec![true; round.len()];
                let trials: Vec<_> = round
                    .into_iter()
                    .map(|trial| (trial.name, trial.rows, trial.seed))
                    .collect();
                ("round", trials.into_pyobject(py)?.into_any())
            }
            Ok(Event::Features(rows, sketched)) => ("features", (rows, sketched).into_pyobject(py)?.into_any()),
            Ok(Event::Done(done)) => {
                let outcome = done.map_err(|failure| failure.into_exception(py))?;
                let told = (outcome.summary, outcome.record, outcome.out, outcome.failure);
                ("done", told.into_pyobject(py)?.into_any())
            }
        };
        Ok(Some((kind, content)))
    }

    /// How far the present stage is: name, steps done, steps in all, a word on how it does, seconds so far.
    fn progress(&self) -> Option<Progress> {
        let stage = locked(&self.shared.stage);
        let stage = stage.as_ref()?;
        let seconds = stage.began.elapsed().as_secs_f64();
        Some((stage.name.clone(), stage.done, stage.total, stage.note.clone(), seconds))
    }

    /// The score of the trial at this place of the round, higher is better, or why there is none. Returns once it is filed; False where the
    /// command has ended, for instance because no score at all is an error: the rest of the round is then not asked for.
    #[pyo3(signature = (place, score=None, error=None, cost=0.0, seconds=0.0))]
    fn tell(
        &self,
        py: Python<'_>,
        place: usize,
        score: Option<f64>,
        error: Option<String>,
        cost: f64,
        seconds: f64,
    ) -> PyResult<bool> {
        match locked(&self.waiting).get_mut(place) {
            Some(waits) if *waits => *waits = false,
            _ => return Err(PyValueError::new_err("this trial waits for no score")),
        }
        let score = score.ok_or_else(|| error.unwrap_or_else(|| "no score".to_owned()));
        let (filed, hears) = mpsc::channel();
        let told = (place, Told { score, cost, seconds }, filed);
        Ok(self.tells.send(told).is_ok() && py.detach(move || hears.recv()).is_ok())
    }

    /// The random matrices of the sketches: of each linear layer its name, where its numbers begin in a sketch, how many a side has, and two matrices of
    /// float32 in rows, of shapes (side, outputs) and (side, inputs). Nothing before features are asked for.
    fn sketch(&self) -> Vec<SketchedLayer> {
        let sketch = locked(&self.shared.sketch);
        let of = |(layer, projection, sides): (usize, Projection, &Sides)| {
            let bytes = |matrix: &Matrix| {
                matrix
                    .as_slice()
                    .iter()
                    .flat_map(|number| number.to_le_bytes())
                    .collect()
            };
            let name = format!("model.layers.{layer}.{}", projection.path());
            (name, sides.at, sides.a.rows(), bytes(&sides.a), bytes(&sides.b))
        };
        sketch
            .iter()
            .flat_map(|sketch| sketch.all_sides().into_iter().map(of))
            .collect()
    }

    /// The features that were asked for, as float32 in rows of `dim` numbers.
    fn tell_features(&self, features: &[u8], dim: usize) -> PyResult<()> {
        let numbers: Vec<f32> = features
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        if dim == 0 || !numbers.len().is_multiple_of(dim) || !features.len().is_multiple_of(4) {
            return Err(PyValueError::new_err(format!(
                "{} bytes are no float32 in rows of {dim}",
                features.len()
            )));
        }
        let rows = numbers.len() / dim;
        self.made
            .send(Matrix::from_vec(numbers, rows, dim))
            .map_err(|_| PyRuntimeError::new_err("this command has ended"))
    }

    /// Asks the command to stop, and waits until it has: what is done is kept.
    fn stop(&self, py: Python<'_>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Not under the lock: who waits for that holds on to Python.
        let thread = locked(&self.thread).take();
        if let Some(thread) = thread {
            py.detach(|| {
                // It says by an event what ended it.
                let _ = thread.join();
            });
        }
    }
}
