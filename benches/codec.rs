//! Reading and writing the bodies of inference, in GB of tensor per second, against a copy of the tensor in
//! memory and against `serde_json`'s value tree; all in one run, by turns, medians of the rounds.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::cast_possible_truncation, reason = "numbers are made to be of 32 bits")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use onward::http::codec;
use onward::inference::{NamedTensor, Tensor};
use serde_json::{Value, json};

/// A few features, and an image of 3 x 224 x 224.
const SIZES: [usize; 2] = [64, 150_528];

/// How often each is measured.
const ROUNDS: usize = 15;

/// How long one measurement takes.
const TIME: Duration = Duration::from_millis(60);

/// One thing that is measured.
struct Work {
    name: &'static str,
    /// What it is compared with besides memory.
    against: Option<&'static str>,
    run: Box<dyn FnMut()>,
    seconds: Vec<f64>,
}

impl Work {
    fn new(name: &'static str, run: impl FnMut() + 'static) -> Self {
        Self { name, against: None, run: Box::new(run), seconds: Vec::new() }
    }

    fn against(self, other: &'static str) -> Self {
        Self { against: Some(other), ..self }
    }

    /// Takes one measurement.
    fn measure(&mut self) {
        let (began, mut times) = (Instant::now(), 0_u32);
        while began.elapsed() < TIME {
            (self.run)();
            times += 1;
        }
        self.seconds.push(began.elapsed().as_secs_f64() / f64::from(times));
    }

    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

fn main() -> Result<()> {
    let unknown = std::env::args().skip(1).find(|argument| argument != "--bench");
    ensure!(unknown.is_none(), "unknown argument {unknown:?}; there are none");
    println!("median of {ROUNDS} rounds of {TIME:?}, by turns");
    SIZES.into_iter().try_for_each(size)
}

fn size(count: usize) -> Result<()> {
    let mut works = works(count)?;
    for _ in 0..ROUNDS {
        works.iter_mut().for_each(Work::measure);
    }
    let bytes = f64::from(u32::try_from(count * 4)?);
    let seconds = |name: &str| works.iter().find(|work| work.name == name).map(Work::median);
    let copy = seconds("memcpy").context("it was measured")?;
    println!(
        "\n{:<24}{:>10}{:>12}{:>14}",
        format!("{count} floats"),
        "GB/s",
        "of memcpy",
        "of the tree"
    );
    for work in &works {
        let time = work.median();
        let against = work.against.and_then(seconds);
        let against = against.map_or(String::new(), |other| format!("{:.2}", other / time));
        println!(
            "{:<24}{:>10.3}{:>12.4}{:>14}",
            work.name,
            bytes / time / 1e9,
            copy / time,
            against
        );
    }
    Ok(())
}

/// Numbers as models have them: with all their digits.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
    };
    std::iter::repeat_with(number).take(count).collect()
}

fn works(count: usize) -> Result<Vec<Work>> {
    let values = numbers(count);
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let text = Bytes::from(request(&values, false));
    let data_first = Bytes::from(request(&values, true));
    let (binary, header) = binary_request(&raw);
    let tensor = Tensor::from_vec(vec![1, count], values.clone())?;
    let outputs = vec![NamedTensor { name: "y".to_owned(), tensor }];
    let read = codec::decode(text.clone(), None).map_err(anyhow::Error::msg)?;
    ensure!(read[0].tensor.as_slice::<f32>() == Some(&values), "it is not what was written");

    let (mut target, source) = (raw.clone(), raw);
    let copy = move || black_box(&mut target).copy_from_slice(black_box(&source));
    let (tree_text, tree_values) = (text.clone(), values);
    let read_tree = move || drop(black_box(from_tree(black_box(&tree_text))));
    let write_tree = move || drop(black_box(answer(black_box(&tree_values)).to_string()));
    let read_json = move || drop(black_box(codec::decode(black_box(&text).clone(), None)));
    let read_late = move || drop(black_box(codec::decode(black_box(&data_first).clone(), None)));
    let read_binary =
        move || drop(black_box(codec::decode(black_box(&binary).clone(), Some(header))));
    let binary_outputs = outputs.clone();
    let write_json = move || drop(black_box(codec::encode(black_box(&outputs), false)));
    let write_binary = move || drop(black_box(codec::encode(black_box(&binary_outputs), true)));
    Ok(vec![
        Work::new("memcpy", copy),
        Work::new("read tree", read_tree),
        Work::new("read JSON", read_json).against("read tree"),
        Work::new("read JSON, data first", read_late).against("read tree"),
        Work::new("read binary", read_binary).against("read tree"),
        Work::new("write tree", write_tree),
        Work::new("write JSON", write_json).against("write tree"),
        Work::new("write binary", write_binary).against("write tree"),
    ])
}

/// A body with the fields of its input as clients write them, or with the data before what it is.
fn request(values: &[f32], data_first: bool) -> String {
    let data = format!(r#""data":{}"#, json!(values));
    let what = format!(r#""shape":[1,{}],"datatype":"FP32""#, values.len());
    let (one, other) = if data_first { (data, what) } else { (what, data) };
    format!(r#"{{"inputs":[{{"name":"x",{one},{other}}}]}}"#)
}

fn answer(values: &[f32]) -> Value {
    let output =
        json!({ "name": "y", "datatype": "FP32", "shape": [1, values.len()], "data": values });
    json!({ "model_name": "m", "model_version": "1", "outputs": [output] })
}

/// A body whose tensor follows the JSON as it is, and the length of the JSON.
fn binary_request(raw: &[u8]) -> (Bytes, usize) {
    let parameters = json!({ "binary_data_size": raw.len() });
    let input = json!({ "name": "x", "shape": [1, raw.len() / 4], "datatype": "FP32", "parameters": parameters });
    let header = json!({ "inputs": [input] }).to_string();
    (Bytes::from([header.as_bytes(), raw].concat()), header.len())
}

/// The same by a tree of values, as a server does that takes what its framework offers.
fn from_tree(text: &[u8]) -> Option<Vec<f32>> {
    let body: Value = serde_json::from_slice(text).ok()?;
    let data = body["inputs"][0]["data"].as_array()?;
    data.iter().map(|value| value.as_f64().map(|value| value as f32)).collect()
}
