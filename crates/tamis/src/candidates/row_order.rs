//! In which order a cluster gives its rows.

use tamis_nn::named_enum;

use crate::Error;

/// In which order the rows of a cluster are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowOrder {
    /// By relevance where validation rows differ from the pool, else by coverage.
    #[default]
    Auto,
    /// The most like the validation rows, and unlike the pool, first.
    Relevance,
    /// The most like the whole cluster first: facility location.
    Coverage,
    /// At random.
    Random,
}

named_enum!(RowOrder, "row_order", Error, {
    Auto => "auto": "relevance where validation rows differ from the pool, else coverage",
    Relevance => "relevance": "those most like validation rows first",
    Coverage => "coverage": "those most like the whole cluster first",
    Random => "random": "at random",
});
