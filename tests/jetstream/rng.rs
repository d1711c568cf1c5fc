//! Random numbers from a seed that is printed, so that a failure can be repeated.

/// The generator `SplitMix64`.
pub(crate) struct Rng(u64);

impl Rng {
    /// Takes the seed from the variable `SEED`, or draws one. Prints it either way.
    pub(crate) fn new(test: &str) -> Self {
        let seed = std::env::var("SEED").map_or_else(
            |_| {
                let now = std::time::SystemTime::now();
                now.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
            },
            |text| text.parse().unwrap(),
        );
        println!("{test}: SEED={seed}");
        Self(seed)
    }

    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
