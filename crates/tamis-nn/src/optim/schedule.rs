//! How the learning rate changes over a run.

/// The learning rate of step `step` (from 0) of `total`, as a share of the highest: it rises linearly over `warmup_steps` steps and falls
/// linearly to 0 at the end. Source: `get_linear_schedule_with_warmup` of transformers.
pub fn linear_schedule(step: u64, warmup_steps: u64, total: u64) -> f32 {
    if step < warmup_steps {
        step as f32 / warmup_steps.max(1) as f32
    } else {
        total.saturating_sub(step) as f32 / (total - warmup_steps).max(1) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_worked_by_hand() {
        let rates: Vec<f32> = (0..7).map(|step| linear_schedule(step, 2, 6)).collect();
        assert_eq!(rates, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]);
    }
}
