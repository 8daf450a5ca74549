//! A matrix packed so that its columns are the left side of a product: `uᵀ x` without a transposed copy of `u`.

use rayon::prelude::*;

/// Columns whose numbers lie side by side: as many as rows pass a panel together.
pub const TILE: usize = 6;
/// Columns that are packed together: whole lines of the cache, so that each is read once.
const GROUP: usize = 8 * TILE;
/// Rows that are read at a time: their lines stay in the first cache while several tiles are filled from them.
const BLOCK: usize = 32;

/// Columns of a matrix in tiles.
#[derive(Debug, Clone, Default)]
pub struct PrepackedTransposed {
    /// Tile after tile, each of shape `(depth, TILE)`, the last filled up with zeros; behind them what more of them have left.
    numbers: Vec<f32>,
    depth: usize,
    columns: usize,
}

impl PrepackedTransposed {
    /// Packs `matrix`, rows of length `columns`, on all threads, in the room of other tiles, and adds every column's sum to `sums`.
    ///
    /// # Panics
    ///
    /// If lengths do not fit, or the matrix is empty.
    pub fn prepack(&mut self, matrix: &[f32], columns: usize, sums: &mut [f32]) {
        let depth = matrix.len() / columns;
        assert!(
            depth > 0 && depth * columns == matrix.len() && sums.len() == columns,
            "tiles of rows of {columns}: {} numbers, {} sums",
            matrix.len(),
            sums.len()
        );
        (self.depth, self.columns) = (depth, columns);
        let length = self.length();
        if self.numbers.len() < length {
            self.numbers.resize(length, 0.0);
        }
        self.numbers[..length]
            .par_chunks_mut(GROUP * depth)
            .zip(sums.par_chunks_mut(GROUP))
            .enumerate()
            .for_each(|(i, (tiles, sums))| {
                let count = sums.len();
                for (block, rows) in matrix.chunks(BLOCK * columns).enumerate() {
                    let rows = rows.chunks_exact(columns).map(|row| &row[GROUP * i..][..count]);
                    for (t, tile) in tiles.chunks_exact_mut(TILE * depth).enumerate() {
                        fill(&mut tile.as_chunks_mut().0[BLOCK * block..], TILE * t, rows.clone());
                    }
                    for row in rows {
                        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                    }
                }
            });
    }

    fn length(&self) -> usize {
        self.columns.div_ceil(TILE) * TILE * self.depth
    }

    /// How many numbers a column has.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The tiles from the one of column `first` on.
    pub(crate) fn from(&self, first: usize) -> &[f32] {
        &self.numbers[first / TILE * TILE * self.depth..self.length()]
    }
}

/// Fills a tile with the columns from `first` on.
fn fill<'a>(tile: &mut [[f32; TILE]], first: usize, rows: impl Iterator<Item = &'a [f32]>) {
    for (to, row) in tile.iter_mut().zip(rows) {
        let row = &row[first..];
        if let Some(numbers) = row.first_chunk() {
            *to = *numbers;
        } else {
            *to = [0.0; TILE];
            to[..row.len()].copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_lie_in_tiles_and_are_summed() {
        // Rows (0 1 .. 7), (10 11 .. 17), in room that other tiles have left full.
        let mut tiles = PrepackedTransposed::default();
        tiles.prepack(&[9.0; 60], 20, &mut [0.0; 20]);
        let matrix: Vec<f32> = [0.0, 10.0]
            .iter()
            .flat_map(|x| (0..8).map(move |i| x + i as f32))
            .collect();
        let mut sums = [1.0; 8];
        tiles.prepack(&matrix, 8, &mut sums);
        assert_eq!(
            tiles.from(0)[..12],
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
        );
        assert_eq!(
            tiles.from(6),
            [6.0, 7.0, 0.0, 0.0, 0.0, 0.0, 16.0, 17.0, 0.0, 0.0, 0.0, 0.0]
        );
        assert_eq!(sums, [11.0, 13.0, 15.0, 17.0, 19.0, 21.0, 23.0, 25.0]);
    }
}
