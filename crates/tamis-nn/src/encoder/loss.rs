//! Cross-entropy of groups of scores: a row's labels, or a question's choices.

/// The sum over the groups of the cross-entropy between softmax and target, natural logarithm, lower is better.
///
/// Group `i` is `scores[groups[i]..groups[i + 1]]`. A target's share is `1 - smoothing`, and `smoothing` is spread evenly over the
/// whole group (Szegedy et al. 2016, section 7, as PyTorch has it). `upstream` becomes the derivative by the scores of the
/// sum times `weight`.
///
/// # Panics
///
/// If the lengths do not fit or a target is not in its group.
pub fn cross_entropy(
    scores: &[f32],
    groups: &[usize],
    targets: &[u32],
    smoothing: f32,
    weight: f32,
    upstream: &mut Vec<f32>,
) -> f64 {
    assert_eq!(groups.len(), targets.len() + 1, "one group a target");
    upstream.clear();
    upstream.resize(scores.len(), 0.0);
    let mut sum = 0.0;
    for (range, &target) in groups.windows(2).zip(targets) {
        let scores = &scores[range[0]..range[1]];
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = f64::from(highest) + scores.iter().map(|&z| f64::from(z - highest).exp()).sum::<f64>().ln();
        let even = f64::from(smoothing) / scores.len() as f64;
        for (j, (&z, out)) in scores.iter().zip(&mut upstream[range[0]..range[1]]).enumerate() {
            let log_p = f64::from(z) - log_sum;
            let share = even
                + if j == target as usize {
                    1.0 - f64::from(smoothing)
                } else {
                    0.0
                };
            sum -= share * log_p;
            *out = weight * (log_p.exp() - share) as f32;
        }
        assert!((target as usize) < scores.len(), "target {target} of {}", scores.len());
    }
    sum
}

/// Softmax within each group, in place.
pub fn softmax_groups(scores: &mut [f32], groups: &[usize]) {
    for range in groups.windows(2) {
        crate::kernels::elementwise::softmax(&mut scores[range[0]..range[1]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_slopes_worked_by_hand() {
        // Scores ln 1, ln 3: p = (1/4, 3/4); target 1: loss ln 4/3, slope (1/4, -1/4). Scores 0, 0, 0, target 0: ln 3.
        let scores = [0.0, 3f32.ln(), 0.0, 0.0, 0.0];
        let mut upstream = Vec::new();
        let loss = cross_entropy(&scores, &[0, 2, 5], &[1, 0], 0.0, 2.0, &mut upstream);
        assert!((loss - ((4.0f64 / 3.0).ln() + 3.0f64.ln())).abs() < 1e-6);
        for (u, want) in upstream.iter().zip([0.5, -0.5, -4.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0]) {
            assert!((u - want).abs() < 1e-6, "{u}");
        }
        // Smoothing 0.2 over two: targets (0.1, 0.9): loss 0.1 ln 4 + 0.9 ln 4/3, slope (0.15, -0.15).
        let loss = cross_entropy(&scores[..2], &[0, 2], &[1], 0.2, 1.0, &mut upstream);
        assert!((loss - (0.1 * 4f64.ln() + 0.9 * (4.0f64 / 3.0).ln())).abs() < 1e-6);
        assert!((upstream[0] - 0.15).abs() < 1e-6 && (upstream[1] + 0.15).abs() < 1e-6);
        let mut shares = scores;
        softmax_groups(&mut shares, &[0, 2, 5]);
        assert!((shares[1] - 0.75).abs() < 1e-6 && (shares[4] - 1.0 / 3.0).abs() < 1e-6);
    }
}
