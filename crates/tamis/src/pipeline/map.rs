//! `map.json`: the picture of the clusters and their rows, for the report.

use rand::seq::index;
use tamis_nn::seed::Seed;

use crate::{
    Result,
    cluster::{self, ClusterStatistics, Clusters},
    data::{Dataset, RowId},
    embed::{Embedded, pooled},
    pipeline::describe,
    records::selection::{MAP_SIDE, MapCluster, MapRecord, MapRows, MapSample, VERSION},
};

/// The most rows that are drawn, so that a browser bears the page.
const MOST_ROWS: usize = 60_000;
/// The most of them that are chosen ones.
const MOST_CHOSEN: usize = 20_000;
/// Rows of a cluster that can be read, and the most characters of each.
const SAMPLES: usize = 4;
const SAMPLE_LENGTH: usize = 160;

/// Lays out the clusters, and the rows in them: chosen rows before others where there are too many. `chosen` is sorted.
pub(crate) fn map(
    dataset: &Dataset,
    train: &Embedded,
    clusters: &Clusters,
    statistics: &[ClusterStatistics],
    chosen: &[RowId],
    seed: Seed,
) -> Result<MapRecord> {
    let discs = cluster::layout(&clusters.centroids, &clusters.sizes);
    let drawn = drawn(&dataset.pool, chosen, seed);
    let rows: Vec<RowId> = drawn.iter().map(|&at| dataset.pool[at]).collect();
    let of: Vec<u32> = drawn.iter().map(|&at| clusters.assignment[at]).collect();
    let views = pooled::of_few(train, &rows)?;
    let distances: Vec<f32> = views
        .iter_rows()
        .zip(&of)
        .map(|(view, &cluster)| {
            let centroid = clusters.centroids.row(cluster as usize);
            view.iter().zip(centroid).map(|(x, c)| (x - c) * (x - c)).sum()
        })
        .collect();
    let (x, y) = cluster::place(&discs, &of, &distances)
        .into_iter()
        .map(|[x, y]| (coordinate(x), coordinate(y)))
        .unzip();
    let chosen = (0..rows.len() as u32)
        .filter(|&i| chosen.binary_search(&rows[i as usize]).is_ok())
        .collect();
    Ok(MapRecord {
        version: VERSION,
        clusters: discs
            .iter()
            .zip(statistics)
            .map(|(disc, statistics)| MapCluster {
                x: coordinate(disc.x),
                y: coordinate(disc.y),
                radius: coordinate(disc.radius),
                samples: statistics
                    .nearest
                    .iter()
                    .take(SAMPLES)
                    .map(|&at| sample(dataset, dataset.pool[at as usize]))
                    .collect(),
            })
            .collect(),
        rows: MapRows { x, y, chosen },
    })
}

/// Which places of the pool are drawn, in rising order.
fn drawn(pool: &[RowId], chosen: &[RowId], seed: Seed) -> Vec<usize> {
    let (taken, others): (Vec<usize>, Vec<usize>) =
        (0..pool.len()).partition(|&at| chosen.binary_search(&pool[at]).is_ok());
    let some = |of: Vec<usize>, most: usize, name: &str| -> Vec<usize> {
        if of.len() <= most {
            return of;
        }
        let mut rng = seed.derive(name).rng();
        index::sample(&mut rng, of.len(), most)
            .into_iter()
            .map(|i| of[i])
            .collect()
    };
    let mut drawn = some(taken, MOST_CHOSEN, "chosen");
    drawn.extend(some(others, MOST_ROWS - drawn.len(), "others"));
    drawn.sort_unstable();
    drawn
}

/// The beginning of a row's texts, and its label.
fn sample(dataset: &Dataset, row: RowId) -> MapSample {
    let example = &dataset.train.examples[row as usize];
    MapSample {
        text: describe::beginning(&example.input.texts().join(" · "), SAMPLE_LENGTH),
        label: dataset.task.labels.get(example.target as usize).cloned(),
    }
}

fn coordinate(share: f64) -> u16 {
    (share.clamp(0.0, 1.0) * f64::from(MAP_SIDE)).round() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_rows_are_drawn_before_others_and_the_same_ones_every_time() {
        let pool: Vec<RowId> = (0..100_000).collect();
        let chosen: Vec<RowId> = (0..300).map(|i| i * 7).collect();
        let rows = drawn(&pool, &chosen, Seed(1));
        assert_eq!(rows.len(), MOST_ROWS);
        assert!(rows.is_sorted() && chosen.iter().all(|&row| rows.binary_search(&(row as usize)).is_ok()));
        assert_eq!(rows, drawn(&pool, &chosen, Seed(1)));
        assert_eq!(drawn(&pool[..500], &chosen, Seed(1)).len(), 500);
    }
}
