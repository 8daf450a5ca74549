//! Methods x budgets x seeds on one data set, and what to make of the scores.

mod record;
mod table;
mod verdict;

pub use record::{
    CellRecord, EVERYTHING, Failure, Family, MethodRecord, RANDOM, Seconds, StudyRecord, VERSION, WHOLE, break_even,
};
pub use table::table;
pub use verdict::verdict;
