//! Dropout whose mask is a function of a key and a place, so that the backward pass makes it again instead of keeping it.
//!
//! Source: Srivastava et al. 2014, with kept numbers scaled up in training ("inverted"), as PyTorch has it. The generator is
//! a counter through a 32-bit mixing function: equal keys give equal masks however work is cut up between threads.

use crate::kernels::elementwise::wide;

/// What is dropped at one place of a network in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    probability: f32,
    key: u64,
}

impl Dropout {
    /// Drops each number with this probability, at least 0 and below 1; 0 leaves everything as it is.
    pub fn new(probability: f32, key: u64) -> Self {
        Self { probability, key }
    }

    /// Whether it leaves everything as it is.
    pub fn is_nothing(self) -> bool {
        self.probability == 0.0
    }

    /// The same probability with a mask of its own for one of several places.
    pub fn at(self, place: u64) -> Self {
        // The finaliser of splitmix64 (Steele et al. 2014).
        let mut key = self.key ^ (place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self {
            key: key ^ (key >> 31),
            ..self
        }
    }

    /// Drops and scales; `values[0]` stands at place `offset`. On a gradient this is the backward pass.
    pub fn apply(self, values: &mut [f32], offset: usize) {
        if self.is_nothing() {
            return;
        }
        let scale = 1.0 / (1.0 - self.probability);
        let threshold = (f64::from(self.probability) * 4_294_967_296.0) as u32;
        let (low, high) = (self.key as u32, (self.key >> 32) as u32);
        let offset = offset as u32;
        wide(
            #[inline(always)]
            || {
                for (i, x) in values.iter_mut().enumerate() {
                    let mut h = offset.wrapping_add(i as u32) ^ low;
                    h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d) ^ high;
                    h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
                    h ^= h >> 16;
                    *x = if h < threshold { 0.0 } else { *x * scale };
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_dropped_and_the_rest_scaled_the_same_way_every_time() {
        let dropout = Dropout::new(0.1, 7).at(3);
        let mut values = vec![1.0; 100_000];
        dropout.apply(&mut values, 0);
        let dropped = values.iter().filter(|&&x| x == 0.0).count();
        // 10,000 expected, standard deviation 95
        assert!((9_600..10_400).contains(&dropped), "{dropped}");
        assert!(values.iter().all(|&x| x == 0.0 || (x - 1.0 / 0.9).abs() < 1e-6));
        let mut part = vec![1.0; 500];
        dropout.apply(&mut part, 70_000);
        assert_eq!(
            part,
            values[70_000..70_500],
            "a part of the mask is the mask of the part"
        );
        let mut other = vec![1.0; 1000];
        Dropout::new(0.1, 7).at(4).apply(&mut other, 0);
        assert_ne!(other, values[..1000]);
        let mut untouched = [3.0; 4];
        Dropout::new(0.0, 7).apply(&mut untouched, 0);
        assert_eq!(untouched, [3.0; 4]);
    }
}
