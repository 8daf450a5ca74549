//! A synthetic data set with the usual ills, to try everything on: support tickets and their intents.
//!
//! Less than half of the 4,000 training rows are worth having. The `ill` field of a training row says what is wrong with
//! it; no part of tamis reads it.
//!
//! | ill | share | what it is |
//! |---|---|---|
//! | (none) | 45% | a ticket with its intent |
//! | `mislabelled` | 20% | tickets about two products, imported from an old system with their intents shifted |
//! | `duplicate` | 20% | an earlier ticket with another greeting, case or ending |
//! | `off_topic` | 15% | newsletters and small talk, labelled at random |
//!
//! Three of the twelve intents are rare in training (1% of the sound rows each) and as frequent as the others in the 600
//! validation and 1,000 test rows, which have no ills, and no text twice.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tamis_nn::{atomic_write::write_whole, seed::Seed};

use crate::{Error, Result};

const TRAIN: usize = 4000;
const VALIDATION: usize = 600;
const TEST: usize = 1000;

/// Intents and how their tickets are put. The last [`RARE`] are rare in training.
const INTENTS: [(&str, [&str; 5]); 12] = [
    (
        "refund",
        [
            "I want my money back for {thing} that I paid {when}",
            "please refund {thing}, it is not what the page promised",
            "you charged me and {thing} never worked, return the amount to my card",
            "how long does a refund for {thing} take? I asked {when}",
            "I cancelled {thing} within the trial, so the payment must be reimbursed",
        ],
    ),
    (
        "double_charge",
        [
            "my card was billed twice for {thing} {when}",
            "there are two identical charges for {thing} on my statement",
            "I see a duplicate payment for {thing}, one of them is wrong",
            "you took the monthly fee for {thing} two times {when}",
            "charged again for {thing} although the invoice is paid",
        ],
    ),
    (
        "password_reset",
        [
            "I forgot the password of {thing} and the reset mail does not arrive",
            "the link to reset my password for {thing} has expired",
            "cannot sign in to {thing} since {when}, it says wrong password",
            "please send a new password reset link for {thing}",
            "locked out of {thing} after too many password attempts",
        ],
    ),
    (
        "delivery_status",
        [
            "where is my parcel with {thing}? it was sent {when}",
            "the tracking number for {thing} has not moved since {when}",
            "{thing} should have been delivered {when}, the courier knows nothing",
            "when will the shipment with {thing} arrive",
            "the parcel with {thing} is marked delivered but nobody got it",
        ],
    ),
    (
        "crash",
        [
            "{thing} crashes as soon as I open it since {when}",
            "after the update {thing} closes with an error message",
            "{thing} freezes on start and I have to kill it",
            "the app of {thing} stops responding when I press save",
            "{thing} shows a white screen and then quits {when}",
        ],
    ),
    (
        "slow",
        [
            "{thing} has become painfully slow since {when}",
            "every page of {thing} takes half a minute to load",
            "{thing} lags when I scroll, it was smooth before",
            "searching in {thing} takes ages {when}",
            "the performance of {thing} is terrible on my laptop",
        ],
    ),
    (
        "cancel",
        [
            "please cancel my subscription to {thing} at the end of the month",
            "I want to end the contract for {thing}, how do I do that",
            "stop renewing {thing}, I do not need it any more",
            "cancel {thing} before the next billing date",
            "I tried to unsubscribe from {thing} {when} and could not find the button",
        ],
    ),
    (
        "change_address",
        [
            "I have moved, please change the shipping address for {thing}",
            "update my billing address for {thing}, the street is new",
            "the address on the invoice of {thing} is out of date since {when}",
            "send {thing} to my office instead of my home address",
            "how do I edit the postal address in {thing}",
        ],
    ),
    (
        "feature_request",
        [
            "it would be great if {thing} had a dark mode",
            "please add export to a spreadsheet to {thing}",
            "could {thing} support keyboard shortcuts in a future version",
            "I would love a calendar view in {thing}",
            "suggestion: let {thing} remind me of unfinished drafts",
        ],
    ),
    (
        "data_deletion",
        [
            "delete all personal data that {thing} keeps about me",
            "under privacy law I ask you to erase my records in {thing}",
            "remove my profile and history from {thing} for good",
            "what personal data does {thing} store, and how do I have it erased",
            "I withdraw my consent, wipe my data from {thing}",
        ],
    ),
    (
        "fraud",
        [
            "somebody else is using my account of {thing}, I did not place these orders",
            "I got a suspicious mail that pretends to be {thing} and asks for my card",
            "unknown login to {thing} from another country {when}",
            "my account of {thing} was hacked {when}, block it",
            "an order for {thing} was made with my stolen card",
        ],
    ),
    (
        "accessibility",
        [
            "the screen reader cannot read the menu of {thing}",
            "the text in {thing} is too small and cannot be enlarged",
            "colours in {thing} have too little contrast for my eyesight",
            "captions are missing from the videos in {thing}",
            "I cannot use {thing} without a mouse, the focus jumps",
        ],
    ),
];
/// How many of the last intents are rare.
const RARE: usize = 3;

const THINGS: [&str; 10] = [
    "the photo editor",
    "the music plan",
    "the family package",
    "the desktop client",
    "the note app",
    "the cloud drive",
    "the premium tier",
    "the fitness tracker",
    "the smart lamp",
    "the e-book reader",
];
/// Products of an old system, whose import shifted the intents.
const OLD_THINGS: [&str; 2] = ["the legacy Quillon terminal", "the legacy Marbeck printer"];
const WHENS: [&str; 7] = [
    "yesterday",
    "last week",
    "on Monday",
    "this morning",
    "two days ago",
    "in March",
    "after the last update",
];
const GREETINGS: [&str; 7] = [
    "",
    "",
    "Hello, ",
    "Hi team, ",
    "Good morning, ",
    "Dear support, ",
    "Hey, ",
];
const ENDINGS: [&str; 7] = ["", "", ".", ". Thanks", ". Please help", "!", ". Order number {number}"];
const OFF_TOPIC: [&str; 8] = [
    "Our spring newsletter: {a} and {b} for every taste, only this week",
    "lunch today is {a} with {b}, who is coming?",
    "does anybody have a recipe for {a} without {b}",
    "the football club talked about {a} and {b} all evening",
    "weather report: {a} in the north, {b} in the south",
    "win a trip to the land of {a} and {b}, click now",
    "minutes of the garden club: {a} was planted, {b} was postponed",
    "my cat prefers {a} over {b}, is that normal",
];
const WORDS: [&str; 12] = [
    "pumpkin soup",
    "lemon cake",
    "sunshine",
    "thunder",
    "tomatoes",
    "old tractors",
    "jazz",
    "tulips",
    "cheese",
    "river boats",
    "fresh bread",
    "long novels",
];

/// Where the files of the data set are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoFiles {
    /// 4,000 rows with `text`, `label` and `ill`.
    pub train: PathBuf,
    /// 600 rows with `text` and `label`.
    pub validation: PathBuf,
    /// 1,000 rows with `text` and `label`.
    pub test: PathBuf,
}

/// Writes the data set into a folder; the same seed writes the same bytes.
///
/// # Errors
///
/// If a file cannot be written, or one of that name stands there with other contents.
pub fn write(folder: &Path, seed: Seed) -> Result<DemoFiles> {
    fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let seed = seed.derive("demo");
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(there) if there == text.as_bytes() => Ok(path),
            Ok(_) => Err(Error::setting(
                "out",
                "a folder without other data",
                format!("{}, which holds something else", path.display()),
            )
            .with_hint("name another folder, such as `out runs/demo-2`")),
            Err(_) => {
                write_whole(&path, &mut |out| {
                    out.write_all(text.as_bytes()).map_err(Error::io(&path, "write"))
                })?;
                Ok(path)
            }
        }
    };
    let mut seen = HashSet::new();
    let mut sound = |name: &str, rows| sound(rows, &mut seen, &mut seed.derive(name).rng());
    Ok(DemoFiles {
        train: file("train.jsonl", train(&mut seed.derive("train").rng()))?,
        validation: file("validation.jsonl", sound("validation", VALIDATION))?,
        test: file("test.jsonl", sound("test", TEST))?,
    })
}

/// Rows without ills, every intent as likely as the others, whose texts are not among those seen.
fn sound(rows: usize, seen: &mut HashSet<String>, rng: &mut ChaCha8Rng) -> String {
    let mut lines = String::new();
    let enough = seen.len() + rows;
    while seen.len() < enough {
        let intent = rng.random_range(0..INTENTS.len());
        let text = ticket(intent, pick(&THINGS, rng), rng);
        if seen.insert(text.clone()) {
            lines += &format!("{}\n", json!({"text": text, "label": INTENTS[intent].0}));
        }
    }
    lines
}

fn train(rng: &mut ChaCha8Rng) -> String {
    let mut tickets: Vec<(String, usize)> = Vec::new();
    let mut lines = String::new();
    for _ in 0..TRAIN {
        let (text, label, ill) = match rng.random_range(0..100) {
            0..20 => {
                let intent = frequent(rng);
                let text = ticket(intent, pick(&OLD_THINGS, rng), rng);
                (text, (intent + 1) % (INTENTS.len() - RARE), Some("mislabelled"))
            }
            20..40 if !tickets.is_empty() => {
                let (text, label) = tickets[rng.random_range(0..tickets.len())].clone();
                (reworded(&text, rng), label, Some("duplicate"))
            }
            40..55 => {
                let text = pick(&OFF_TOPIC, rng)
                    .replace("{a}", pick(&WORDS, rng))
                    .replace("{b}", pick(&WORDS, rng));
                (
                    reworded(&text, rng),
                    rng.random_range(0..INTENTS.len()),
                    Some("off_topic"),
                )
            }
            _ => {
                let intent = if rng.random_range(0..100) < RARE {
                    rng.random_range(INTENTS.len() - RARE..INTENTS.len())
                } else {
                    frequent(rng)
                };
                let text = ticket(intent, pick(&THINGS, rng), rng);
                tickets.push((text.clone(), intent));
                (text, intent, None)
            }
        };
        lines += &format!("{}\n", json!({"text": text, "label": INTENTS[label].0, "ill": ill}));
    }
    lines
}

/// An intent that is not rare; the first ones come more often than the last.
fn frequent(rng: &mut ChaCha8Rng) -> usize {
    let last = INTENTS.len() - RARE;
    rng.random_range(0..last).min(rng.random_range(0..last))
}

fn ticket(intent: usize, thing: &str, rng: &mut ChaCha8Rng) -> String {
    let body = pick(&INTENTS[intent].1, rng)
        .replace("{thing}", thing)
        .replace("{when}", pick(&WHENS, rng));
    format!("{}{body}{}", pick(&GREETINGS, rng), ending(rng))
}

/// The same text with another greeting, case or ending.
fn reworded(text: &str, rng: &mut ChaCha8Rng) -> String {
    match rng.random_range(0..3) {
        0 => format!("{}{text}", pick(&GREETINGS, rng)),
        1 => text.to_lowercase() + &ending(rng),
        _ => text.trim_end_matches(['.', '!']).to_owned() + &ending(rng),
    }
}

fn ending(rng: &mut ChaCha8Rng) -> String {
    pick(&ENDINGS, rng).replace("{number}", &rng.random_range(10_000..100_000).to_string())
}

fn pick<'a>(choices: &[&'a str], rng: &mut ChaCha8Rng) -> &'a str {
    choices.choose(rng).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_ills_are_there_in_the_shares_that_are_promised() {
        let text = train(&mut Seed(3).rng());
        let mut ills: HashMap<String, usize> = HashMap::new();
        for line in text.lines() {
            let row: Value = serde_json::from_str(line).expect("JSON");
            *ills
                .entry(row["ill"].as_str().unwrap_or("none").to_owned())
                .or_default() += 1;
        }
        for (ill, share) in [
            ("none", 0.45),
            ("mislabelled", 0.2),
            ("duplicate", 0.2),
            ("off_topic", 0.15),
        ] {
            let found = ills[ill] as f64 / TRAIN as f64;
            assert!((found - share).abs() < 0.03, "{ill}: {found}");
        }
    }

    #[test]
    fn no_text_stands_twice_in_validation_and_test() {
        let mut seen = HashSet::new();
        let mut rng = Seed(3).rng();
        let files = [VALIDATION, TEST].map(|rows| sound(rows, &mut seen, &mut rng));
        let texts: HashSet<String> = files
            .iter()
            .flat_map(|file| file.lines())
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["text"].to_string())
            .collect();
        assert_eq!(texts.len(), VALIDATION + TEST);
    }

    #[test]
    fn the_same_seed_writes_the_same_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = write(folder.path(), Seed(1)).expect("writes");
        assert_eq!(write(folder.path(), Seed(1)).expect("is there already"), files);
        let before = fs::read(&files.train).expect("reads");
        let error = write(folder.path(), Seed(2)).expect_err("other contents");
        assert!(error.is_input() && error.hint().is_some(), "{error}");
        assert_eq!(fs::read(&files.train).expect("reads"), before);
    }
}
