//! `tamis select`: from the user's files to the chosen rows.

use tamis::{
    Monitor,
    commands::{self, Outside},
};

use crate::{flags::SelectArgs, messages::Messages, outcome::Outcome, summary, threads::with_threads};

pub(crate) fn run(
    args: SelectArgs,
    messages: &Messages,
    outside: &Outside<'_>,
    monitor: &dyn Monitor,
) -> anyhow::Result<Outcome> {
    with_threads(args.threads, || {
        let mut settings = args.into_settings()?;
        settings.command = messages.command("select", &settings);
        let record = commands::select_with(&settings, outside, monitor)?;
        Ok(Outcome {
            summary: summary::of(&record, &settings.out, messages),
            record: serde_json::to_string(&record)?,
            out: settings.out,
            failure: None,
        })
    })
}
