//! A training step of the DQN: 32 transitions of 200 actions (14 features each, 4 global ones), 128 observed rewards, double
//! Q-learning, Adam, target network.

use criterion::{Criterion, criterion_group, criterion_main};
use rand::RngExt;
use tamis::{
    agents::network::{NetworkKind, QNetwork, Training, TrainingSample},
    env::{Observation, Shape},
};
use tamis_nn::{Matrix, seed::Seed};

const SHAPE: Shape = Shape {
    actions: 200,
    action_features: 14,
    global_features: 4,
    state_features: 0,
};

fn training_step(criterion: &mut Criterion) {
    let mut rng = Seed(1).rng();
    let mut observation = || Observation {
        actions: Matrix::from_vec((0..200 * 14).map(|_| rng.random::<f32>()).collect(), 200, 14),
        global: (0..4).map(|_| rng.random::<f32>()).collect(),
        step: 0,
        legal: vec![true; 200],
    };
    let seen: Vec<Observation> = (0..32).map(|_| observation()).collect();
    let next: Vec<Observation> = (0..32).map(|_| observation()).collect();
    let next: Vec<&Observation> = next.iter().collect();
    let mut online = QNetwork::new(NetworkKind::Shared, SHAPE, 64, true, Seed(2));
    let mut target = online.clone();
    let mut training = Training::new(&online, 1e-3, 10.0);
    let observed: Vec<Vec<f32>> = (0..128).map(|i| online.input(&seen[i % 32], i)).collect();
    criterion.bench_function("dqn/training step", |bencher| {
        bencher.iter(|| {
            let (choosing, target_values) = (online.values(&next), target.values(&next));
            let futures: Vec<f32> = choosing
                .iter()
                .zip(&target_values)
                .map(|(choosing, target)| {
                    let q = |action: usize| choosing.reward[action] + choosing.future[action];
                    let best = (0..200)
                        .reduce(|a, b| if q(b) > q(a) { b } else { a })
                        .expect("actions");
                    target.reward[best] + target.future[best]
                })
                .collect();
            let inputs: Vec<Vec<f32>> = seen.iter().enumerate().map(|(i, seen)| online.input(seen, i)).collect();
            let transitions = inputs
                .iter()
                .zip(futures)
                .enumerate()
                .map(|(action, (input, future))| TrainingSample {
                    input,
                    action,
                    reward: Some(0.5),
                    future: Some(future),
                });
            let rewards = observed.iter().enumerate().map(|(action, input)| TrainingSample {
                input,
                action,
                reward: Some(0.1),
                future: None,
            });
            let samples: Vec<TrainingSample<'_>> = transitions.chain(rewards).collect();
            let loss = online.learn(&samples, &mut training);
            training.step(&mut online);
            target.follow(&online, 0.01);
            loss
        });
    });
}

criterion_group!(benches, training_step);
criterion_main!(benches);
