//! Small ONNX models for tests and benchmarks, written without the `onnx` package.
//!
//! A builder appends protobuf fields in the order of its calls, so equal calls give equal bytes.
//! Only what these models need of `onnx.proto` is here; numbers passed as `field` are its field
//! numbers.

#![allow(dead_code, reason = "each binary that includes it takes its pick")]

/// IR version 8 and operator set 17: old enough for every supported runtime, and recent enough
/// that `Identity` takes all of [`Elem::ALL`].
const IR_VERSION: i64 = 8;
const OPERATOR_SET: i64 = 17;

/// The element types of ONNX tensors, with the numbers of `TensorProto.DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Elem {
    /// IEEE 754 single precision.
    Float = 1,
    /// Unsigned 8-bit integer.
    Uint8 = 2,
    /// Signed 8-bit integer.
    Int8 = 3,
    /// Unsigned 16-bit integer.
    Uint16 = 4,
    /// Signed 16-bit integer.
    Int16 = 5,
    /// Signed 32-bit integer.
    Int32 = 6,
    /// Signed 64-bit integer.
    Int64 = 7,
    /// A byte string.
    String = 8,
    /// One byte, 0 or 1.
    Bool = 9,
    /// IEEE 754 half precision.
    Float16 = 10,
    /// IEEE 754 double precision.
    Double = 11,
    /// Unsigned 32-bit integer.
    Uint32 = 12,
    /// Unsigned 64-bit integer.
    Uint64 = 13,
    /// The upper half of an IEEE 754 single.
    BFloat16 = 16,
}

impl Elem {
    /// Every element type, in the order of their numbers.
    pub(crate) const ALL: [Self; 14] = [
        Self::Float,
        Self::Uint8,
        Self::Int8,
        Self::Uint16,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::String,
        Self::Bool,
        Self::Float16,
        Self::Double,
        Self::Uint32,
        Self::Uint64,
        Self::BFloat16,
    ];
}

/// One dimension of a declared shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dim<'a> {
    /// Always this long.
    Fixed(i64),
    /// Any length; dimensions of the same name are of the same length.
    Symbolic(&'a str),
}

const ONE: [Dim<'static>; 1] = [Dim::Fixed(1)];
const BATCH: Dim<'static> = Dim::Symbolic("batch");

/// `x` -> `Identity` -> `y`, both of this element type and shape.
pub(crate) fn identity(elem: Elem, dims: &[Dim<'_>]) -> Vec<u8> {
    Graph::new("identity")
        .input("x", elem, dims)
        .output("y", elem, dims)
        .node(&Node::new("Identity", &["x"], &["y"]))
        .into_model()
}

/// `y` = `x`: one number without a dimension, FP32.
pub(crate) fn scalar_input() -> Vec<u8> {
    identity(Elem::Float, &[])
}

/// `y` = `x`, FP32 `[batch, 3, width]`.
pub(crate) fn with_symbolic_and_fixed() -> Vec<u8> {
    identity(Elem::Float, &[BATCH, Dim::Fixed(3), Dim::Symbolic("width")])
}

/// `y` = `x` + `value`, FP32 `[batch, 4]`: the answer tells which version gave it.
pub(crate) fn add_constant(value: f32) -> Vec<u8> {
    let dims = [BATCH, Dim::Fixed(4)];
    Graph::new("add_constant")
        .input("x", Elem::Float, &dims)
        .output("y", Elem::Float, &dims)
        .initializer("value", &Tensor::floats(&[], &[value]))
        .node(&Node::new("Add", &["x", "value"], &["y"]))
        .into_model()
}

/// [`add_constant`] whose value is in the file `location` beside the graph: four bytes, little-endian.
pub(crate) fn add_external(location: &str) -> Vec<u8> {
    let dims = [BATCH, Dim::Fixed(4)];
    Graph::new("add_external")
        .input("x", Elem::Float, &dims)
        .output("y", Elem::Float, &dims)
        .initializer("value", &Tensor::external(&[1], location))
        .node(&Node::new("Add", &["x", "value"], &["y"]))
        .into_model()
}

/// A graph with an initializer of `dims`, which has no data for them.
pub(crate) fn huge(dims: &[usize]) -> Vec<u8> {
    Graph::new("huge")
        .input("x", Elem::Float, &ONE)
        .output("y", Elem::Float, &ONE)
        .initializer("value", &Tensor::floats(dims, &[1.0]))
        .node(&Node::new("Add", &["x", "value"], &["y"]))
        .into_model()
}

/// A graph with an operator that does not exist.
pub(crate) fn unknown_operator() -> Vec<u8> {
    Graph::new("unknown_operator")
        .input("x", Elem::Float, &ONE)
        .output("y", Elem::Float, &ONE)
        .node(&Node::new("Transmogrify", &["x"], &["y"]))
        .into_model()
}

/// [`add_constant`] in a form that is newer than any runtime.
pub(crate) fn of_the_future() -> Vec<u8> {
    let mut model = add_constant(1.0);
    // The field `ir_version` comes first.
    model[1] = 100;
    model
}

/// [`identity`] of an operator set that no runtime has.
pub(crate) fn of_operator_set(number: i64) -> Vec<u8> {
    Graph::new("future")
        .input("x", Elem::Float, &ONE)
        .output("y", Elem::Float, &ONE)
        .node(&Node::new("Identity", &["x"], &["y"]))
        .into_model_of(number)
}

/// `y` = -`x`, FP32 `[batch, 4]`: what was largest is smallest.
pub(crate) fn negated() -> Vec<u8> {
    let dims = [BATCH, Dim::Fixed(4)];
    Graph::new("negated")
        .input("x", Elem::Float, &dims)
        .output("y", Elem::Float, &dims)
        .node(&Node::new("Neg", &["x"], &["y"]))
        .into_model()
}

/// `y` = `x`, FP32 `[batch, 4]`, for zeros; anything from 1 on is an index out of range. The warm-up,
/// which sends zeros, does not find that out.
pub(crate) fn failing_unless_zero() -> Vec<u8> {
    let dims = [BATCH, Dim::Fixed(4)];
    Graph::new("failing_unless_zero")
        .input("x", Elem::Float, &dims)
        .output("y", Elem::Float, &dims)
        .initializer("only", &Tensor::floats(&[1], &[0.0]))
        .node(&Node::new("Cast", &["x"], &["index"]).attribute("to", &Attribute::Int(7)))
        .node(&Node::new("Gather", &["only", "index"], &["y"]))
        .into_model()
}

/// Two dense layers with a `Relu` between them: `x` FP32 `[batch, inputs]` -> `y` FP32
/// `[batch, outputs]`. The weights look random and are the same in every call.
pub(crate) fn mlp(inputs: usize, hidden: usize, outputs: usize) -> Vec<u8> {
    mlp_of(0, [inputs, hidden, outputs])
}

/// [`mlp`] with the weights that belong to `seed`.
pub(crate) fn mlp_of(seed: u64, [inputs, hidden, outputs]: [usize; 3]) -> Vec<u8> {
    let mut noise = Noise(seed);
    Graph::new("mlp")
        .input("x", Elem::Float, &[BATCH, Dim::Fixed(length(inputs))])
        .output("y", Elem::Float, &[BATCH, Dim::Fixed(length(outputs))])
        .initializer("hidden_weight", &noise.tensor(&[hidden, inputs]))
        .initializer("hidden_bias", &noise.tensor(&[hidden]))
        .initializer("output_weight", &noise.tensor(&[outputs, hidden]))
        .initializer("output_bias", &noise.tensor(&[outputs]))
        .node(&dense(["x", "hidden_weight", "hidden_bias"], "sums"))
        .node(&Node::new("Relu", &["sums"], &["activations"]))
        .node(&dense(["activations", "output_weight", "output_bias"], "y"))
        .into_model()
}

/// `y` = `x` + `iterations`, FP32 `[1]`, computed by adding 1 that many times, each in a bit less
/// than a microsecond. A run can be terminated between any two additions. The answer is exact up
/// to 2^24, which is well over ten seconds.
pub(crate) fn slow(iterations: i64) -> Vec<u8> {
    counting_graph("slow")
        .initializer("iterations", &Tensor::int64s(&[1], &[iterations]))
        .into_model()
}

/// [`slow`] whose caller says how long: the input `iterations`, INT64 `[1]`, comes after `x`.
pub(crate) fn slow_by_input() -> Vec<u8> {
    counting_graph("slow_by_input").input("iterations", Elem::Int64, &ONE).into_model()
}

/// `a` FP32 `[batch, 2]` and `b` INT64 `[batch]` -> `sum` = `a` + `a`, FP32 `[batch, 2]`, and
/// `b_out` = `b`, INT64 `[batch]`.
pub(crate) fn two_inputs_two_outputs() -> Vec<u8> {
    let pairs = [BATCH, Dim::Fixed(2)];
    Graph::new("two_inputs_two_outputs")
        .input("a", Elem::Float, &pairs)
        .input("b", Elem::Int64, &[BATCH])
        .output("sum", Elem::Float, &pairs)
        .output("b_out", Elem::Int64, &[BATCH])
        .node(&Node::new("Add", &["a", "a"], &["sum"]))
        .node(&Node::new("Identity", &["b"], &["b_out"]))
        .into_model()
}

/// `y` = `x` + `bias`, all FP32 `[1]`. `bias` is an input with an initializer, which makes it
/// optional: 1 unless given. The runtime lists it apart from the required inputs.
pub(crate) fn optional_default() -> Vec<u8> {
    Graph::new("optional_default")
        .input("x", Elem::Float, &ONE)
        .input("bias", Elem::Float, &ONE)
        .output("y", Elem::Float, &ONE)
        .initializer("bias", &Tensor::floats(&[1], &[1.0]))
        .node(&Node::new("Add", &["x", "bias"], &["y"]))
        .into_model()
}

/// A dense layer over `[input, weight, bias]`, the weight being `[to, from]`.
fn dense(inputs: [&str; 3], output: &str) -> Node {
    Node::new("Gemm", &inputs, &[output]).attribute("transB", &Attribute::Int(1))
}

/// `y` = `x` + the number of rounds that `iterations` says; the caller adds `iterations`.
fn counting_graph(name: &str) -> Graph {
    looping_graph(name, &Tensor::floats(&[1], &[1.0]))
}

/// `y` = `x` + `iterations` times what a file beside the graph holds, to which a graph inside it refers.
pub(crate) fn looping_external(iterations: i64, location: &str) -> Vec<u8> {
    looping_graph("looping_external", &Tensor::external(&[1], location))
        .initializer("iterations", &Tensor::int64s(&[1], &[iterations]))
        .into_model()
}

fn looping_graph(name: &str, step: &Tensor) -> Graph {
    let rounds = Node::new("Loop", &["iterations", "", "x"], &["y"]);
    Graph::new(name)
        .input("x", Elem::Float, &ONE)
        .output("y", Elem::Float, &ONE)
        .node(&rounds.attribute("body", &Attribute::Graph(add_step(step))))
}

/// A `Loop` body that goes on for ever and adds `step` to the one value it carries.
fn add_step(step: &Tensor) -> Graph {
    Graph::new("add_step")
        .input("round", Elem::Int64, &[])
        .input("going", Elem::Bool, &[])
        .input("total", Elem::Float, &ONE)
        .output("go_on", Elem::Bool, &[])
        .output("next_total", Elem::Float, &ONE)
        .initializer("step", step)
        .node(&Node::new("Identity", &["going"], &["go_on"]))
        .node(&Node::new("Add", &["total", "step"], &["next_total"]))
}

/// A `GraphProto`: a model's own graph, or the body of a control flow operator.
#[derive(Debug)]
pub(crate) struct Graph(Message);

impl Graph {
    /// An empty graph.
    pub(crate) fn new(name: &str) -> Self {
        Self(Message::default().text(2, name))
    }

    /// Declares the next input.
    pub(crate) fn input(self, name: &str, elem: Elem, dims: &[Dim<'_>]) -> Self {
        Self(self.0.message(11, &value_info(name, elem, dims)))
    }

    /// Declares the next output.
    pub(crate) fn output(self, name: &str, elem: Elem, dims: &[Dim<'_>]) -> Self {
        Self(self.0.message(12, &value_info(name, elem, dims)))
    }

    /// Adds a constant, or the default of the input of the same name.
    pub(crate) fn initializer(self, name: &str, tensor: &Tensor) -> Self {
        Self(self.0.message(5, &tensor.0.clone().text(8, name)))
    }

    /// Adds a node; it may only use what came before it.
    pub(crate) fn node(self, node: &Node) -> Self {
        Self(self.0.message(1, &node.0))
    }

    /// The bytes of a `.onnx` file with this graph.
    pub(crate) fn into_model(self) -> Vec<u8> {
        self.into_model_of(OPERATOR_SET)
    }

    /// The same with another operator set.
    fn into_model_of(self, operator_set: i64) -> Vec<u8> {
        let operators = Message::default().text(1, "").integer(2, operator_set);
        Message::default()
            .integer(1, IR_VERSION)
            .text(2, "onward-tests")
            .message(7, &self.0)
            .message(8, &operators)
            .0
    }
}

/// A `NodeProto`: one use of an operator.
#[derive(Debug)]
pub(crate) struct Node(Message);

impl Node {
    /// A node named after its first output. An empty input name leaves an optional input out.
    pub(crate) fn new(operator: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let named = Message::default().text(3, outputs[0]).text(4, operator);
        let fed = inputs.iter().fold(named, |node, input| node.text(1, input));
        Self(outputs.iter().fold(fed, |node, output| node.text(2, output)))
    }

    /// Sets an attribute of the operator.
    pub(crate) fn attribute(self, name: &str, value: &Attribute) -> Self {
        let named = Message::default().text(1, name);
        let attribute = match value {
            Attribute::Int(value) => named.integer(3, *value).integer(20, 2),
            Attribute::Ints(values) => {
                let listed = values.iter().fold(named, |named, value| named.integer(8, *value));
                listed.integer(20, 7)
            }
            Attribute::Tensor(tensor) => named.message(5, &tensor.0).integer(20, 4),
            Attribute::Graph(body) => named.message(6, &body.0).integer(20, 5),
        };
        Self(self.0.message(5, &attribute))
    }
}

/// The value of an operator's attribute.
#[derive(Debug)]
pub(crate) enum Attribute {
    /// A number, or a truth value as 0 or 1.
    Int(i64),
    /// Several numbers.
    Ints(Vec<i64>),
    /// A constant.
    Tensor(Tensor),
    /// What a control flow operator runs.
    Graph(Graph),
}

/// A `TensorProto`: the data of an initializer, which gives it its name.
#[derive(Debug)]
pub(crate) struct Tensor(Message);

impl Tensor {
    /// FP32 data in row-major order.
    pub(crate) fn floats(dims: &[usize], values: &[f32]) -> Self {
        Self::raw(Elem::Float, dims, values.iter().flat_map(|value| value.to_le_bytes()))
    }

    /// INT64 data in row-major order.
    pub(crate) fn int64s(dims: &[usize], values: &[i64]) -> Self {
        Self::raw(Elem::Int64, dims, values.iter().flat_map(|value| value.to_le_bytes()))
    }

    /// FP32 data in a file beside the graph.
    pub(crate) fn external(dims: &[usize], location: &str) -> Self {
        let typed = Message::default().integer(2, Elem::Float as i64);
        let shaped = dims.iter().fold(typed, |tensor, &dim| tensor.integer(1, length(dim)));
        let place = Message::default().text(1, "location").text(2, location);
        Self(shaped.message(13, &place).integer(14, 1))
    }

    fn raw(elem: Elem, dims: &[usize], bytes: impl Iterator<Item = u8>) -> Self {
        let typed = Message::default().integer(2, elem as i64);
        let shaped = dims.iter().fold(typed, |tensor, &dim| tensor.integer(1, length(dim)));
        Self(shaped.bytes(9, &bytes.collect::<Vec<_>>()))
    }
}

/// A `ValueInfoProto`: a name with the type of a tensor. A shape is always present, so that no
/// dimensions means a scalar and not an unknown rank.
fn value_info(name: &str, elem: Elem, dims: &[Dim<'_>]) -> Message {
    let shape = dims.iter().fold(Message::default(), |shape, dim| {
        let length = match dim {
            Dim::Fixed(length) => Message::default().integer(1, *length),
            Dim::Symbolic(name) => Message::default().text(2, name),
        };
        shape.message(1, &length)
    });
    let tensor = Message::default().integer(1, elem as i64).message(2, &shape);
    Message::default().text(1, name).message(2, &Message::default().message(1, &tensor))
}

fn length(elements: usize) -> i64 {
    i64::try_from(elements).expect("a tensor that fits in memory has lengths below 2^63")
}

/// A protobuf message under construction: the fields so far, in wire format.
#[derive(Debug, Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn integer(self, field: u64, value: i64) -> Self {
        self.varint(field << 3).varint(value.cast_unsigned())
    }

    fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn bytes(self, field: u64, value: &[u8]) -> Self {
        let mut message = self.varint(field << 3 | 2).varint(value.len() as u64);
        message.0.extend_from_slice(value);
        message
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
        self
    }
}

/// Numbers that look random, the same in every run: a 64-bit linear congruential generator.
#[derive(Debug)]
struct Noise(u64);

impl Noise {
    fn tensor(&mut self, dims: &[usize]) -> Tensor {
        let values: Vec<_> = (0..dims.iter().product()).map(|_| self.weight()).collect();
        Tensor::floats(dims, &values)
    }

    /// From -0.05 up to 0.05, so that sums over wide layers stay small.
    fn weight(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let [.., low, high] = self.0.to_le_bytes();
        (f32::from(u16::from_le_bytes([low, high])) / 65_536.0 - 0.5) * 0.1
    }
}
