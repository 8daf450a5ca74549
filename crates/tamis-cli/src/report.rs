//! `tamis report`: the page of a run or a study, written again from the files in its folder.

use tamis::report;

use crate::{args::ReportArgs, output};

pub(crate) fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let page = report::write(&args.folder)?;
    output::print(&page.display().to_string())?;
    Ok(())
}
