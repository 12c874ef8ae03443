//! A transformer as large as `MiniLM`, with six layers, written as exporters write it, with random weights:
//! texts in, their mean embeddings out.

use super::builder::{Builder, reach, signed};
use super::onnx::{Attribute, Dim, Elem, Graph, Tensor};
use super::{Data, Input, items};

const VOCABULARY: usize = 30_522;
const POSITIONS: usize = 512;
const LAYERS: usize = 6;
const HIDDEN: usize = 384;
const HEADS: usize = 12;
const INTERMEDIATE: usize = 1536;

/// The inputs, all INT64 `[batch, sequence]`.
const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// Texts of tokens that mean nothing, all as long.
pub(super) fn inputs(first: usize, shape: [usize; 2]) -> Vec<Input> {
    let [batch, sequence] = shape;
    let vocabulary = u32::try_from(VOCABULARY).expect("it is small");
    let ids = items(first, batch, |noise| {
        (0..sequence).map(|_| i64::from(noise.next() % vocabulary)).collect()
    });
    let all = |value| vec![value; batch * sequence];
    let data = [ids, all(1), all(0)].into_iter().map(Data::Integers);
    let named = INPUTS.into_iter().zip(data);
    named.map(|(name, data)| Input { name, shape: shape.to_vec(), data }).collect()
}

/// [`INPUTS`] -> `y` FP32 `[batch, 384]`, the mean over the tokens that the mask says are there.
pub(super) fn graph() -> Vec<u8> {
    let mut encoder = Encoder::start();
    encoder.embed();
    let mask = encoder.mask();
    for _ in 0..LAYERS {
        encoder.attend(&mask);
        encoder.feed_forward();
    }
    encoder.pooled()
}

/// The graph so far.
struct Encoder {
    builder: Builder,
    /// The last hidden state.
    at: String,
}

impl Encoder {
    fn start() -> Self {
        let [batch, tokens] = [Dim::Symbolic("batch"), Dim::Symbolic("sequence")];
        let graph = INPUTS.iter().fold(Graph::new("encoder"), |graph, name| {
            graph.input(name, Elem::Int64, &[batch, tokens])
        });
        let graph = graph.output("y", Elem::Float, &[batch, Dim::Fixed(signed(HIDDEN))]);
        let mut builder = Builder::new(graph, 2);
        constants(&mut builder);
        Self { builder, at: String::new() }
    }

    /// The sum of what is known of a token, its place and its text.
    fn embed(&mut self) {
        let builder = &mut self.builder;
        let [words, places, kinds] =
            [VOCABULARY, POSITIONS, 2].map(|rows| builder.weights(&[rows, HIDDEN], 1.0));
        let shape = builder.node("Shape", &["input_ids"]);
        let length = builder.node("Gather", &[&shape, "one"]);
        let range = builder.node("Range", &["zero", &length, "one"]);
        let words = builder.node("Gather", &[&words, "input_ids"]);
        let kinds = builder.node("Gather", &[&kinds, "token_type_ids"]);
        let places = builder.node("Gather", &[&places, &range]);
        let sum = builder.node("Add", &[&words, &kinds]);
        let sum = builder.node("Add", &[&sum, &places]);
        self.normalise(&sum);
    }

    /// What is added to the scores of tokens that are not there.
    fn mask(&mut self) -> String {
        let mask = self.present("over_scores");
        let absent = self.builder.node("Sub", &["whole", &mask]);
        self.builder.node("Mul", &[&absent, "away"])
    }

    fn attend(&mut self, mask: &str) {
        let [queries, values] = [(); 2].map(|()| self.heads([0, 2, 1, 3]));
        let keys = self.heads([0, 2, 3, 1]);
        let scores = self.builder.node("MatMul", &[&queries, &keys]);
        let scores = self.builder.node("Div", &[&scores, "scale"]);
        let scores = self.builder.node("Add", &[&scores, mask]);
        let shares = self.builder.node("Softmax", &[&scores]);
        let mixed = self.builder.node("MatMul", &[&shares, &values]);
        let mixed = self.transposed(&mixed, [0, 2, 1, 3]);
        let mixed = self.builder.node("Reshape", &[&mixed, "together"]);
        let mixed = self.dense(&mixed, [HIDDEN, HIDDEN]);
        self.add_and_normalise(&mixed);
    }

    /// The hidden state, projected and cut into heads.
    fn heads(&mut self, order: [i64; 4]) -> String {
        let dense = self.dense(&self.at.clone(), [HIDDEN, HIDDEN]);
        let apart = self.builder.node("Reshape", &[&dense, "apart"]);
        self.transposed(&apart, order)
    }

    fn feed_forward(&mut self) {
        let wide = self.dense(&self.at.clone(), [HIDDEN, INTERMEDIATE]);
        let wide = self.gelu(&wide);
        let narrow = self.dense(&wide, [INTERMEDIATE, HIDDEN]);
        self.add_and_normalise(&narrow);
    }

    fn gelu(&mut self, x: &str) -> String {
        let scaled = self.builder.node("Div", &[x, "root"]);
        let erf = self.builder.node("Erf", &[&scaled]);
        let raised = self.builder.node("Add", &[&erf, "whole"]);
        let product = self.builder.node("Mul", &[x, &raised]);
        self.builder.node("Mul", &[&product, "half"])
    }

    fn pooled(mut self) -> Vec<u8> {
        let present = self.present("over_hidden");
        let kept = self.builder.node("Mul", &[&self.at, &present]);
        let [sum, count] = [&kept, &present].map(|tensor| self.summed(tensor));
        let mean = self.builder.node("Div", &[&sum, &count]);
        self.builder.answer(&mean);
        self.builder.into_model()
    }

    /// Over the tokens.
    fn summed(&mut self, x: &str) -> String {
        let keep = [("keepdims", Attribute::Int(0))];
        self.builder.node_with("ReduceSum", &[x, "over_tokens"], &keep)
    }

    /// The attention mask as numbers, with further dimensions.
    fn present(&mut self, dims: &str) -> String {
        let mask = self.builder.node("Unsqueeze", &["attention_mask", dims]);
        let to = [("to", Attribute::Int(Elem::Float as i64))];
        self.builder.node_with("Cast", &[&mask], &to)
    }

    fn transposed(&mut self, x: &str, order: [i64; 4]) -> String {
        let order = [("perm", Attribute::Ints(order.to_vec()))];
        self.builder.node_with("Transpose", &[x], &order)
    }

    fn dense(&mut self, x: &str, dims: [usize; 2]) -> String {
        let weight = self.builder.weights(&dims, reach(dims[0]));
        let bias = self.builder.weights(&[dims[1]], 0.1);
        let product = self.builder.node("MatMul", &[x, &weight]);
        self.builder.node("Add", &[&bias, &product])
    }

    fn add_and_normalise(&mut self, x: &str) {
        let sum = self.builder.node("Add", &[x, &self.at]);
        self.normalise(&sum);
    }

    fn normalise(&mut self, x: &str) {
        let scale = self.builder.weights(&[HIDDEN], 1.0);
        let bias = self.builder.weights(&[HIDDEN], 0.1);
        self.at = self.builder.node("LayerNormalization", &[x, &scale, &bias]);
    }
}

fn constants(builder: &mut Builder) {
    let head = HIDDEN / HEADS;
    for (name, values) in [
        ("apart", vec![0, 0, signed(HEADS), signed(head)]),
        ("together", vec![0, 0, signed(HIDDEN)]),
        ("over_scores", vec![1, 2]),
        ("over_tokens", vec![1]),
        ("over_hidden", vec![2]),
    ] {
        builder.constant(name, &Tensor::int64s(&[values.len()], &values));
    }
    for (name, value) in [("zero", 0), ("one", 1)] {
        builder.constant(name, &Tensor::int64s(&[], &[value]));
    }
    #[expect(clippy::cast_precision_loss, reason = "a head is small")]
    let scale = (head as f32).sqrt();
    let floats = [("whole", 1.0), ("half", 0.5), ("root", 2_f32.sqrt()), ("away", -10_000.0)];
    for (name, value) in floats.into_iter().chain([("scale", scale)]) {
        builder.constant(name, &Tensor::floats(&[], &[value]));
    }
}
