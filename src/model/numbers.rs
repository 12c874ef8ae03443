//! Generated inputs whose entries differ.

use bytes::Bytes;
use half::{bf16, f16};

use super::warm_up::Fill;
use crate::inference::{DataType, Tensor, TensorError};

/// Numbers in no order, always the same ones: a linear congruential generator, with the constants of
/// Knuth's MMIX. They are near those of a fill, which a model is known to take: the same or one more where
/// they are whole, in between otherwise.
pub(super) struct Numbers {
    state: u64,
    least: u32,
    /// How many whole ones there are.
    whole: u32,
}

impl Numbers {
    pub(super) fn new(fill: Fill) -> Self {
        let least = match fill {
            Fill::Zeros => 0,
            Fill::Ones => 1,
        };
        Self { state: 1, least, whole: 2 }
    }

    /// Whole numbers are those of the fill.
    pub(super) fn with_same_whole_ones(fill: Fill) -> Self {
        Self { whole: 1, ..Self::new(fill) }
    }

    pub(super) fn tensor(
        &mut self,
        datatype: DataType,
        shape: Vec<usize>,
    ) -> Result<Tensor, TensorError> {
        let count = shape.iter().product();
        let Some(size) = datatype.size() else {
            let texts = (0..count).map(|_| Bytes::from(self.whole().to_string()));
            return Tensor::from_strings(shape, texts.collect());
        };
        let mut raw = Vec::with_capacity(count * size);
        for _ in 0..count {
            match datatype {
                DataType::Fp16 => raw.extend(f16::from_f64(self.real()).to_le_bytes()),
                DataType::Bf16 => raw.extend(bf16::from_f64(self.real()).to_le_bytes()),
                #[expect(clippy::cast_possible_truncation, reason = "rounded to the datatype")]
                DataType::Fp32 => raw.extend((self.real() as f32).to_le_bytes()),
                DataType::Fp64 => raw.extend(self.real().to_le_bytes()),
                DataType::Bool => raw.push(u8::from(self.whole() % 2 == 1)),
                _ => raw.extend(&u64::from(self.whole()).to_le_bytes()[..size]),
            }
        }
        Tensor::from_bytes(datatype, shape, Bytes::from(raw))
    }

    fn whole(&mut self) -> u32 {
        self.least + self.next() % self.whole
    }

    fn real(&mut self) -> f64 {
        f64::from(self.least) + f64::from(self.next()) / 2_f64.powi(32)
    }

    /// The upper half, as the lower bits have short periods.
    fn next(&mut self) -> u32 {
        let product = self.state.wrapping_mul(6_364_136_223_846_793_005);
        self.state = product.wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.state >> 32).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_has_numbers_that_differ() {
        for datatype in DataType::ALL {
            for fill in [Fill::Zeros, Fill::Ones] {
                let mut numbers = Numbers::new(fill);
                let mut row = || numbers.tensor(datatype, vec![1, 16]).unwrap();
                assert_ne!(row(), row(), "{datatype}");
            }
        }
    }

    #[test]
    fn whole_numbers_may_be_those_of_the_fill() {
        let mut numbers = Numbers::with_same_whole_ones(Fill::Ones);
        let ones = numbers.tensor(DataType::Int64, vec![1, 16]).unwrap();
        assert_eq!(ones, Tensor::ones(DataType::Int64, vec![1, 16]).unwrap());
        let mut real = || numbers.tensor(DataType::Fp32, vec![1, 16]).unwrap();
        assert_ne!(real(), real());
    }
}
