//! `tamis select`: from the user's files to the chosen rows.

use tamis::{commands, records::selection::SelectionRecord, settings::SelectSettings};

use crate::{flags::SelectArgs, messages::Messages, output, progress::Progress, summary, threads::use_threads};

pub(crate) fn run(args: SelectArgs, messages: &Messages, progress: &Progress) -> anyhow::Result<()> {
    use_threads(args.threads)?;
    let mut settings = args.into_settings()?;
    settings.command = messages.command("select", &settings);
    select(&settings, messages, progress)?;
    Ok(())
}

/// Runs the selection and prints its summary.
pub(crate) fn select(
    settings: &SelectSettings,
    messages: &Messages,
    progress: &Progress,
) -> anyhow::Result<SelectionRecord> {
    let record = commands::select(settings, progress)?;
    output::print(summary::of(&record, &settings.out, messages).trim_end())?;
    Ok(record)
}
