//! Groups of rows that say alike things: k-means on embeddings, and what marks each cluster.

mod k_means;
mod layout;
mod statistics;

pub use k_means::{Clusters, KMeansSettings, default_clusters, k_means};
pub use layout::{Disc, layout, place};
pub use statistics::{ClusterStatistics, statistics};
