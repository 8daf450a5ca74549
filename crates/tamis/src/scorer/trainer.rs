//! A command as the trainer: processes that stay, are given trials, and answer each with a score.
//!
//! A trial is one line of JSON on a process's standard input, and its answer one line on standard output:
//!
//! ```text
//! {"trial": "3f9c…", "seed": 7, "rows_file": "…/selected.jsonl", "rows": 250, "out": "…/trials/3f9c…"}
//! {"trial": "3f9c…", "score": 0.81}                                or, of a loss, with "higher_is_better": false;
//!                                                                  with "cost": 0.2 where costs are limited
//! {"trial": "3f9c…", "error": "out of memory"}
//! ```
//!
//! What else a process prints goes to its log. A process that ends, answers nothing in time or answers what is no score is stopped; the trial
//! is given to a new one, so many times as retries allow.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tamis_nn::{Fingerprint, Monitor};

use crate::{
    Error, Result,
    data::RowId,
    scorer::{
        ask_tell::trial_name,
        batch::{BatchScorer, Selection},
        worker_pool::shared_out,
    },
    store::Answer,
};

/// How often a process that works is looked after.
const TICK: Duration = Duration::from_millis(50);
/// Lines of its log that a complaint shows.
const SHOWN: usize = 5;

/// How a command is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerSettings {
    /// The command line, for the system's shell; `{slot}` stands for the number of the process, from 0.
    pub command: String,
    /// How many processes work at once.
    pub parallel: usize,
    /// The most seconds that a trial may take; none: no limit.
    pub timeout: Option<f64>,
    /// How many more times a trial that failed is given out.
    pub retries: u32,
}

/// Writes rows into a folder, for a trainer to read; returns the file.
pub type Export<'a> = dyn Fn(&[RowId], &Path) -> Result<PathBuf> + Sync + 'a;

/// Selections scored by a command.
pub struct TrainerBatch<'a> {
    settings: TrainerSettings,
    /// Holds a folder for each trial, and the logs.
    folder: PathBuf,
    export: Box<Export<'a>>,
    fingerprint: Fingerprint,
    /// Processes that wait for the next round, each at its slot.
    idle: Mutex<Vec<Worker>>,
}

impl<'a> TrainerBatch<'a> {
    /// Keeps trials and logs in `folder`; `data` stands for the rows that `export` writes.
    pub fn new(settings: TrainerSettings, folder: PathBuf, data: &Fingerprint, export: Box<Export<'a>>) -> Self {
        Self {
            fingerprint: Fingerprint::of([b"trainer 1", settings.command.as_bytes(), data.as_ref()]),
            settings,
            folder,
            export,
            idle: Mutex::default(),
        }
    }

    /// The answer of a worker's process for a selection, at the last of its attempts.
    fn answer(&self, worker: &mut Worker, selection: Selection<'_>, monitor: &dyn Monitor) -> Result<Answer> {
        let name = trial_name(selection);
        let out = self.folder.join(&name);
        fs::create_dir_all(&out).map_err(Error::io(&out, "create"))?;
        let trial = Trial {
            trial: &name,
            seed: selection.seed.0,
            rows_file: (self.export)(selection.rows, &out)?,
            rows: selection.rows.len(),
            out,
        };
        let mut attempt = 0;
        loop {
            let began = Instant::now();
            let failure = match worker.ask(self, &trial, monitor)? {
                Ok((score, cost)) => {
                    return Ok(Answer {
                        numbers: vec![score, cost],
                        seconds: began.elapsed().as_secs_f64(),
                    });
                }
                Err(failure) => failure,
            };
            if failure.ends_process() {
                worker.stop();
            }
            if attempt == self.settings.retries {
                return Err(self.complaint(&trial, worker.slot, &failure));
            }
            attempt += 1;
        }
    }

    /// The worker of this slot, with the process that it had in the round before.
    fn lease(&self, slot: usize) -> Leased<'_> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let place = idle.iter().position(|worker| worker.slot == slot);
        Leased {
            worker: place.map_or(Worker { slot, process: None }, |place| idle.swap_remove(place)),
            idle: &self.idle,
        }
    }

    fn log_of(&self, slot: usize) -> PathBuf {
        self.folder.join(format!("trainer-{slot}.log"))
    }

    fn complaint(&self, trial: &Trial<'_>, slot: usize, failure: &Failure) -> Error {
        let log = self.log_of(slot);
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(SHOWN)..].join("\n  ");
        let last = if last.is_empty() {
            String::new()
        } else {
            format!(", which ends with:\n  {last}")
        };
        let expected = format!("a score for the trial {} ({} rows)", trial.trial, trial.rows);
        Error::setting("trainer", expected, failure.to_string()).with_hint(format!(
            "its log is {}{last}\nWhat was answered is kept: the same command goes on",
            log.display()
        ))
    }
}

impl BatchScorer for TrainerBatch<'_> {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score_all(
        &self,
        selections: &[Selection<'_>],
        monitor: &dyn Monitor,
        done: &mut dyn FnMut(usize, Result<Answer>) -> Result<()>,
    ) -> Result<()> {
        let start = |slot| self.lease(slot);
        let work = |leased: &mut Leased<'_>, &i: &usize| self.answer(&mut leased.worker, selections[i], monitor);
        let jobs = (0..selections.len()).collect();
        shared_out(jobs, self.settings.parallel, monitor, &start, &work, done)
    }
}

/// What a process is told of a trial.
#[derive(Serialize)]
struct Trial<'a> {
    trial: &'a str,
    seed: u64,
    rows_file: PathBuf,
    rows: usize,
    out: PathBuf,
}

/// What it answers.
#[derive(Deserialize)]
struct Reply {
    trial: String,
    score: Option<f64>,
    #[serde(default = "yes")]
    higher_is_better: bool,
    #[serde(default)]
    cost: f64,
    error: Option<String>,
}

/// A score, higher is better, and what it cost.
type Scored = (f64, f64);

fn yes() -> bool {
    true
}

/// Why there is no score.
enum Failure {
    Start(std::io::Error),
    Exited(Option<std::process::ExitStatus>),
    Late(f64),
    NoScore(String),
    NotFinite(f64),
    Said(String),
}

impl Failure {
    /// Whether the process is of no more use. One that says what went wrong is.
    fn ends_process(&self) -> bool {
        !matches!(self, Self::Said(_) | Self::NotFinite(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "a command that does not start: {error}"),
            Self::Exited(Some(status)) => write!(f, "a process that ended ({status})"),
            Self::Exited(None) => f.write_str("a process that ended, or closed its standard output"),
            Self::Late(seconds) => write!(f, "no answer in {seconds} s"),
            Self::NoScore(line) => write!(f, "an answer without `score` or `error`: `{line}`"),
            Self::NotFinite(score) => write!(f, "the score {score}"),
            Self::Said(words) => write!(f, "the error `{words}`"),
        }
    }
}

/// One of the places at which a process works.
struct Worker {
    slot: usize,
    process: Option<Process>,
}

/// A worker for a round; its process stays for the next.
struct Leased<'a> {
    worker: Worker,
    idle: &'a Mutex<Vec<Worker>>,
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        let Worker { slot, ref mut process } = self.worker;
        if let Some(process) = process.take() {
            let process = Some(process);
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(Worker { slot, process });
        }
    }
}

struct Process {
    child: Child,
    input: ChildStdin,
    /// Lines that are answers; closed when the process closes its standard output.
    answers: Receiver<String>,
}

impl Worker {
    /// The score that the process answers, or why there is none.
    fn ask(
        &mut self,
        batch: &TrainerBatch<'_>,
        trial: &Trial<'_>,
        monitor: &dyn Monitor,
    ) -> Result<std::result::Result<Scored, Failure>> {
        if self.process.is_none() {
            match Process::start(batch, self.slot)? {
                Ok(process) => self.process = Some(process),
                Err(error) => return Ok(Err(Failure::Start(error))),
            }
        }
        let process = self.process.as_mut().expect("started above");
        let line = serde_json::to_string(trial).unwrap_or_default();
        let told = writeln!(process.input, "{line}").and_then(|()| process.input.flush());
        if told.is_err() {
            return Ok(Err(Failure::Exited(ended_soon(&mut process.child))));
        }
        let (began, mut ended) = (Instant::now(), None);
        loop {
            match process.answers.recv_timeout(TICK) {
                Ok(line) => {
                    if let Some(score) = score_of(&line, trial.trial) {
                        return Ok(score);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok(Err(Failure::Exited(ended_soon(&mut process.child))));
                }
                Err(RecvTimeoutError::Timeout) => {
                    // What it started may hold its standard output open; what it said last is here a moment later.
                    if ended.is_some() {
                        return Ok(Err(Failure::Exited(ended)));
                    }
                    ended = process.child.try_wait().ok().flatten();
                    if monitor.cancelled() {
                        self.stop();
                        monitor.proceed()?;
                        return Ok(Err(Failure::Exited(None)));
                    }
                    let most = batch.settings.timeout;
                    if let Some(most) = most.filter(|&most| began.elapsed().as_secs_f64() > most) {
                        return Ok(Err(Failure::Late(most)));
                    }
                }
            }
        }
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            kill(&mut process.child);
        }
    }
}

/// How a process ended, if it does within two seconds: one that has closed its standard output may go on.
fn ended_soon(child: &mut Child) -> Option<std::process::ExitStatus> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if began.elapsed() < Duration::from_secs(2) => std::thread::sleep(TICK),
            ended => return ended.ok().flatten(),
        }
    }
}

impl Drop for Worker {
    /// A process that has nothing more to do is told so by the end of its standard input, and waited for a little.
    fn drop(&mut self) {
        let Some(Process { mut child, input, .. }) = self.process.take() else {
            return;
        };
        drop(input);
        ended_soon(&mut child);
        // What it started and left behind goes with it.
        kill(&mut child);
    }
}

/// What a line says of a trial; none where it is about another one, as an answer that came too late is.
fn score_of(line: &str, trial: &str) -> Option<std::result::Result<Scored, Failure>> {
    let Ok(reply) = serde_json::from_str::<Reply>(line) else {
        return Some(Err(Failure::NoScore(line.to_owned())));
    };
    if reply.trial != trial {
        return None;
    }
    Some(match reply {
        Reply { error: Some(words), .. } => Err(Failure::Said(words)),
        Reply { score: None, .. } => Err(Failure::NoScore(line.to_owned())),
        Reply { score: Some(score), .. } if !score.is_finite() => Err(Failure::NotFinite(score)),
        Reply {
            score: Some(score),
            higher_is_better,
            cost,
            ..
        } => Ok((if higher_is_better { score } else { -score }, cost)),
    })
}

impl Process {
    fn start(batch: &TrainerBatch<'_>, slot: usize) -> Result<std::io::Result<Self>> {
        let log = batch.log_of(slot);
        fs::create_dir_all(&batch.folder).map_err(Error::io(&batch.folder, "create"))?;
        let open = || OpenOptions::new().create(true).append(true).open(&log);
        let [own, errors] = [open(), open()];
        let (own, errors) = (
            own.map_err(Error::io(&log, "write"))?,
            errors.map_err(Error::io(&log, "write"))?,
        );
        let command = batch.settings.command.replace("{slot}", &slot.to_string());
        let child = shell(&command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(errors))
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => return Ok(Err(error)),
        };
        let input = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || sort_lines(BufReader::new(output), own, &sender));
        Ok(Ok(Self { child, input, answers }))
    }
}

/// Lines that hold an object with `trial` are answers; the others go to the log.
fn sort_lines(mut output: impl BufRead, mut log: File, answers: &mpsc::Sender<String>) {
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        // Also what is meant to be one: JSON has no NaN.
        let sent = if text.trim_start().starts_with('{') && text.contains("\"trial\"") {
            answers.send(text.trim().to_owned()).is_ok()
        } else {
            // A log that cannot be written stops nothing.
            let _ = log.write_all(&line);
            true
        };
        if !sent {
            return;
        }
        line.clear();
    }
}

/// Ends the command and all that it started, which may have ended by itself.
fn kill(child: &mut Child) {
    #[cfg(unix)]
    let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(child), rustix::process::Signal::KILL);
    let _ = child.kill();
    let _ = child.wait();
}

fn shell(command: &str) -> Command {
    if cfg!(windows) {
        let mut shell = Command::new("cmd");
        shell.args(["/C", command]);
        shell
    } else {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        // A group of its own: what the command starts is stopped with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        shell
    }
}
