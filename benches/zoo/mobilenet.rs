//! `MobileNetV2`, layer by layer as it was published, with random weights and the normalisations folded
//! into the convolutions, as exporters do.

use super::builder::{Builder, reach, signed};
use super::onnx::{Attribute, Dim, Elem, Graph, Tensor};

/// Of each row of inverted residuals: expansion, channels, repetitions, stride of the first.
const ROWS: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

/// What the last convolution gives, and how many classes there are.
const FEATURES: usize = 1280;
const CLASSES: usize = 1000;

/// A layer before which a rectifier has thrown half away needs weights so many times as large.
const RECTIFIED: f32 = std::f32::consts::SQRT_2;

/// `x` FP32 `[batch, 3, 224, 224]` -> `y` FP32 `[batch, 1000]`.
pub(super) fn graph() -> Vec<u8> {
    let mut net = Net::start();
    net.conv(Conv { to: 32, kernel: 3, stride: 2, groups: 1 });
    net.clip();
    for [expansion, to, repetitions, stride] in ROWS {
        for at in 0..repetitions {
            net.residual(
                expansion,
                Conv { to, kernel: 3, stride: if at == 0 { stride } else { 1 }, groups: 1 },
            );
        }
    }
    net.conv(Conv::point(FEATURES));
    net.clip();
    net.classified()
}

/// What a convolution is like.
#[derive(Clone, Copy)]
struct Conv {
    to: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
}

impl Conv {
    const fn point(to: usize) -> Self {
        Self { to, kernel: 1, stride: 1, groups: 1 }
    }

    fn attributes(self) -> [(&'static str, Attribute); 4] {
        let numbers = |value: usize, count| Attribute::Ints(vec![signed(value); count]);
        [
            ("kernel_shape", numbers(self.kernel, 2)),
            ("strides", numbers(self.stride, 2)),
            ("pads", numbers(self.kernel / 2, 4)),
            ("group", Attribute::Int(signed(self.groups))),
        ]
    }
}

/// The graph so far.
struct Net {
    builder: Builder,
    /// The last tensor, and its channels.
    at: String,
    channels: usize,
}

impl Net {
    fn start() -> Self {
        let batch = Dim::Symbolic("batch");
        let image = [batch, Dim::Fixed(3), Dim::Fixed(224), Dim::Fixed(224)];
        let graph = Graph::new("mobilenet_v2").input("x", Elem::Float, &image);
        let graph = graph.output("y", Elem::Float, &[batch, Dim::Fixed(signed(CLASSES))]);
        let mut builder = Builder::new(graph, 1);
        builder.constant("least", &Tensor::floats(&[], &[0.0]));
        builder.constant("most", &Tensor::floats(&[], &[6.0]));
        Self { builder, at: "x".to_owned(), channels: 3 }
    }

    /// Wider, over the neighbours of each channel, and narrow again as `conv` says; with what came in, if
    /// it fits.
    fn residual(&mut self, expansion: usize, conv: Conv) {
        let (before, from) = (self.at.clone(), self.channels);
        let wide = from * expansion;
        if expansion > 1 {
            self.conv(Conv::point(wide));
            self.clip();
        }
        self.conv(Conv { to: wide, groups: wide, ..conv });
        self.clip();
        self.conv(Conv::point(conv.to));
        if conv.stride == 1 && from == conv.to {
            self.at = self.builder.node("Add", &[&self.at, &before]);
        }
    }

    fn conv(&mut self, conv: Conv) {
        let from = self.channels / conv.groups;
        let dims = [conv.to, from, conv.kernel, conv.kernel];
        let reach = reach(from * conv.kernel * conv.kernel) * RECTIFIED;
        let weight = self.builder.weights(&dims, reach);
        let bias = self.builder.weights(&[conv.to], 0.1);
        let inputs = [self.at.as_str(), &weight, &bias];
        self.at = self.builder.node_with("Conv", &inputs, &conv.attributes());
        self.channels = conv.to;
    }

    /// To between 0 and 6.
    fn clip(&mut self) {
        self.at = self.builder.node("Clip", &[&self.at, "least", "most"]);
    }

    fn classified(mut self) -> Vec<u8> {
        let builder = &mut self.builder;
        let pooled = builder.node("GlobalAveragePool", &[&self.at]);
        let flat = builder.node("Flatten", &[&pooled]);
        let weight = builder.weights(&[self.channels, CLASSES], reach(self.channels));
        let bias = builder.weights(&[CLASSES], 0.1);
        let scores = builder.node("Gemm", &[&flat, &weight, &bias]);
        builder.answer(&scores);
        self.builder.into_model()
    }
}
