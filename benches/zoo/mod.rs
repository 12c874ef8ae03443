//! The models of benchmarks: made anew by each run, always the same.

#![allow(dead_code, reason = "each benchmark takes its pick")]

mod builder;
mod mobilenet;
mod noise;
mod transformer;

use super::input::{Data, Input};
use super::onnx;

use noise::Noise;

/// Of the tiny model: inputs, hidden, outputs. So small that the cost of serving shows.
const MLP: [usize; 3] = [64, 32, 10];

/// The tokens of one text.
const SEQUENCE: usize = 128;

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Model {
    /// Two dense layers: a run takes some microseconds.
    Mlp,
    /// `MobileNetV2`: an image of 602 KB, 300 million multiplications.
    Cnn,
    /// A transformer of six layers, as large as `MiniLM`, over 128 tokens.
    Transformer,
}

impl Model {
    pub(crate) const ALL: [Self; 3] = [Self::Mlp, Self::Cnn, Self::Transformer];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Cnn => "cnn",
            Self::Transformer => "transformer",
        }
    }

    /// The bytes of its file; its output is `y`, FP32 `[batch, length]`.
    pub(crate) fn graph(self) -> Vec<u8> {
        match self {
            Self::Mlp => onnx::mlp_of(0, MLP),
            Self::Cnn => mobilenet::graph(),
            Self::Transformer => transformer::graph(),
        }
    }

    /// What a request has for `batch` items, of which no two are alike: `first`, and those after it.
    pub(crate) fn inputs(self, first: usize, batch: usize) -> Vec<Input> {
        match self {
            Self::Mlp => vec![floats(first, vec![batch, MLP[0]])],
            Self::Cnn => vec![floats(first, vec![batch, 3, 224, 224])],
            Self::Transformer => transformer::inputs(first, [batch, SEQUENCE]),
        }
    }
}

/// `x` with numbers from -1 up to 1.
fn floats(first: usize, shape: Vec<usize>) -> Input {
    let length = shape[1..].iter().product();
    let data = items(first, shape[0], |noise| (0..length).map(|_| noise.unit()).collect());
    Input { name: "x", shape, data: Data::Floats(data) }
}

/// The elements of one item after the other, each of which has its own noise.
fn items<T>(first: usize, batch: usize, item: impl Fn(&mut Noise) -> Vec<T>) -> Vec<T> {
    (first..first + batch).flat_map(|number| item(&mut Noise::of(1000 + number))).collect()
}
