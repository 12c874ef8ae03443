//! A graph that grows node by node, with random weights and names that nobody has to make up.

use super::noise::Noise;
use super::onnx::{Attribute, Graph, Node, Tensor};

pub(super) struct Builder {
    graph: Graph,
    noise: Noise,
    names: usize,
}

impl Builder {
    /// Goes on with `graph`; the weights belong to `seed`.
    pub(super) fn new(graph: Graph, seed: usize) -> Self {
        Self { graph, noise: Noise::of(seed), names: 0 }
    }

    pub(super) fn into_model(self) -> Vec<u8> {
        self.graph.into_model()
    }

    pub(super) fn constant(&mut self, name: &str, value: &Tensor) {
        self.add(|graph| graph.initializer(name, value));
    }

    /// Weights from -`reach` up to `reach`.
    pub(super) fn weights(&mut self, dims: &[usize], reach: f32) -> String {
        let values: Vec<f32> =
            (0..dims.iter().product()).map(|_| self.noise.unit() * reach).collect();
        let name = self.name();
        self.constant(&name, &Tensor::floats(dims, &values));
        name
    }

    /// Adds a node; the name of its output.
    pub(super) fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.node_with(operator, inputs, &[])
    }

    /// [`Builder::node`] with attributes.
    pub(super) fn node_with(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> String {
        let output = self.name();
        let node = Node::new(operator, inputs, &[&output]);
        let node = attributes.iter().fold(node, |node, (name, value)| node.attribute(name, value));
        self.add(|graph| graph.node(&node));
        output
    }

    /// Makes the tensor `from` the graph's output `y`.
    pub(super) fn answer(&mut self, from: &str) {
        self.add(|graph| graph.node(&Node::new("Identity", &[from], &["y"])));
    }

    fn add(&mut self, change: impl FnOnce(Graph) -> Graph) {
        let graph = std::mem::replace(&mut self.graph, Graph::new(""));
        self.graph = change(graph);
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("t{}", self.names)
    }
}

/// With weights up to this, what a layer gives is about as large as what it takes.
#[expect(clippy::cast_precision_loss, reason = "a layer has few inputs")]
pub(super) fn reach(fan_in: usize) -> f32 {
    (3.0 / fan_in as f32).sqrt()
}

pub(super) fn signed(number: usize) -> i64 {
    i64::try_from(number).expect("it is small")
}
