//! Methods x budgets x seeds on one data set, and what to make of the scores.

mod record;
mod statistics;
mod table;
mod verdict;

pub use record::{CellRecord, Failure, Family, MethodRecord, Seconds, StudyRecord, VERSION, break_even};
pub use statistics::{Gain, Summary, holm, p_number, p_value};
pub use table::{EVERYTHING, RANDOM, WHOLE, table};
pub use verdict::verdict;
