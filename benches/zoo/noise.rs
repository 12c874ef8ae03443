//! Numbers that look random, the same in every run.

/// A 64-bit linear congruential generator.
#[derive(Debug)]
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn of(seed: usize) -> Self {
        // The first numbers of neighbouring seeds are alike without it.
        let mut noise = Self(seed as u64);
        noise.next();
        noise.next();
        noise
    }

    /// Any of 2^32 numbers.
    pub(super) fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [.., a, b, c, d] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// From -1 up to 1.
    pub(super) fn unit(&mut self) -> f32 {
        let [_, _, low, high] = self.next().to_le_bytes();
        f32::from(u16::from_le_bytes([low, high])) / 32_768.0 - 1.0
    }
}
