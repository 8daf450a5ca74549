//! k-means of 100,000 points in 384 dimensions, or of all that are given, K = 200, on all cores.
//!
//! `TAMIS_BENCH_POINTS` names a file of little-endian `f32` numbers, so that others can cluster the same points; without it
//! they are drawn here. Inertia and passes are printed.

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use rand::RngExt;
use tamis::cluster::{KMeansSettings, k_means};
use tamis_nn::{Matrix, Silent, seed::Seed};

const POINTS: usize = 100_000;
const DIM: usize = 384;

fn points() -> Matrix {
    let numbers: Vec<f32> = if let Some(path) = std::env::var_os("TAMIS_BENCH_POINTS") {
        let bytes = std::fs::read(path).expect("reads");
        let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        bytes.chunks_exact(4).map(number).collect()
    } else {
        let mut rng = Seed(1).rng();
        (0..POINTS * DIM).map(|_| rng.random::<f32>() - 0.5).collect()
    };
    let points = numbers.len() / DIM;
    Matrix::from_vec(numbers, points, DIM)
}

fn cluster(criterion: &mut Criterion) {
    let points = points();
    let settings = KMeansSettings {
        clusters: 200,
        ..KMeansSettings::default()
    };
    let clusters = k_means(&points, &settings, Seed(0), &Silent).expect("clusters");
    println!(
        "k-means: inertia {} after {} passes",
        clusters.inertia, clusters.iterations
    );
    let mut group = criterion.benchmark_group("k-means");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function(format!("{}", points.rows()), |bencher| {
        bencher.iter(|| k_means(&points, &settings, Seed(0), &Silent).expect("clusters"));
    });
}

criterion_group!(benches, cluster);
criterion_main!(benches);
