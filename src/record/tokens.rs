use super::Tokens;
use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Up to 1, 4, 16 and so on up to 4^13 tokens, and more.
pub(crate) const TOKEN_CLASSES: usize = 15;

/// What callers reported, sent and received.
#[derive(Debug)]
pub(super) struct TokenBook {
    sums: [AtomicU64; 2],
    reports: AtomicU64,
    classes: [[AtomicU64; TOKEN_CLASSES]; 2],
}

impl TokenBook {
    pub(super) const fn new() -> Self {
        Self {
            sums: [const { AtomicU64::new(0) }; 2],
            reports: AtomicU64::new(0),
            classes: [const { [const { AtomicU64::new(0) }; TOKEN_CLASSES] }; 2],
        }
    }

    pub(super) fn add(&self, input: u64, output: u64) {
        for (way, tokens) in [input, output].into_iter().enumerate() {
            self.sums[way].fetch_add(tokens, Relaxed);
            self.classes[way][class_of(tokens)].fetch_add(1, Relaxed);
        }
        self.reports.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> Tokens {
        let [input, output] = self.sums.each_ref().map(|sum| sum.load(Relaxed));
        Tokens { input, output, reports: self.reports.load(Relaxed) }
    }

    pub(super) fn classes(&self) -> [[u64; TOKEN_CLASSES]; 2] {
        self.classes.each_ref().map(|classes| array::from_fn(|class| classes[class].load(Relaxed)))
    }
}

fn class_of(tokens: u64) -> usize {
    let power = tokens.max(1).checked_next_power_of_two().map_or(u64::BITS, u64::trailing_zeros);
    (power.div_ceil(2) as usize).min(TOKEN_CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_fall_into_powers_of_four() {
        let classes = [0, 1, 2, 4, 5, 16, 17, 1 << 26, (1 << 26) + 1, u64::MAX].map(class_of);
        assert_eq!(classes, [0, 0, 1, 1, 2, 2, 3, 13, 14, 14]);
    }
}
