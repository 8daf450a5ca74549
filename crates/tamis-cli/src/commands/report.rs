//! `tamis report`: the page of a run or a study, written again from the files in its folder.

use std::path::PathBuf;

use clap::Args;
use tamis::report;

use crate::output;

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The folder that `--out` named; its run may be unfinished
    #[arg(value_name = "RUN")]
    pub(crate) folder: PathBuf,
}

pub(crate) fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let page = report::write(&args.folder)?;
    output::print(&page.display().to_string())?;
    Ok(())
}
