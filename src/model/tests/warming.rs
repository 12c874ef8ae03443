//! Generated warm-ups.

use super::fakes::Step;
use super::*;
use crate::inference::{DataType, Dim, Signature, TensorSpec};
use crate::model::WarmUp;

fn fixed(size: usize) -> Dim {
    Dim::Fixed(size)
}

fn dynamic() -> Dim {
    Dim::Dynamic(String::new())
}

/// A model that takes inputs of these shapes.
fn taking(datatype: DataType, shapes: &[&[Dim]]) -> Fixture {
    let input = |(index, shape): (usize, &&[Dim])| TensorSpec {
        name: format!("input{index}"),
        datatype,
        shape: Some(shape.to_vec()),
        optional: false,
    };
    let inputs: Vec<TensorSpec> = shapes.iter().enumerate().map(input).collect();
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    fixture.world.edit("a", |a| a.signature = Signature { inputs, outputs: Vec::new() });
    fixture
}

#[tokio::test]
async fn a_model_is_asked_in_the_smallest_shape_that_it_answers() {
    let fixture = taking(DataType::Fp32, &[&[dynamic(), fixed(3)]]);
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.world.times(Step::Run, "a/1"), 1);
}

#[tokio::test]
async fn larger_shapes_are_tried_where_a_dimension_is_open() {
    for (dim, tries) in [(dynamic(), 10), (fixed(3), 2)] {
        let fixture = taking(DataType::Fp32, &[&[dim]]);
        fixture.world.break_at(Step::Run, "a/1", fakes::Fault::Fail);
        let error = causes(&fixture.load("a").await.unwrap_err());
        assert!(error.contains("Run of a/1 fails; set 'warm_up: off'"), "{error}");
        assert_eq!(fixture.world.times(Step::Run, "a/1"), tries);
    }
}

#[tokio::test]
async fn ones_are_tried_where_a_model_takes_no_zeros() {
    let fixture = taking(DataType::Uint64, &[&[fixed(3)]]);
    fixture.world.break_at(Step::Run, "a/1", fakes::Fault::Divide);
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.world.times(Step::Run, "a/1"), 2);
    assert_eq!(fixture.world.asked("a/1"), [1]);
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let fixture = taking(DataType::Fp32, &[&[fixed(usize::MAX)]]);
    fixture.world.edit("a", |a| a.settings.warm_up = WarmUp::Off);
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.world.times(Step::Run, "a/1"), 0);
}

/// The model is refused without being asked.
async fn is_too_large(datatype: DataType, shapes: &[&[Dim]]) {
    let fixture = taking(datatype, shapes);
    let error = causes(&fixture.load("a").await.unwrap_err());
    assert!(error.contains("warm-up") && error.contains("256 MiB"), "{error}");
    assert!(error.contains("warm_up: off"), "{error}");
    assert_eq!(fixture.world.times(Step::Run, "a/1"), 0);
    assert_eq!(fixture.world.instances(), 0);
}

#[tokio::test]
async fn an_input_beyond_all_measure_is_never_made() {
    is_too_large(DataType::Fp32, &[&[fixed(5_000_000_000)]]).await;
    is_too_large(DataType::Int8, &[&[fixed(usize::MAX), fixed(usize::MAX)]]).await;
    is_too_large(DataType::Fp64, &[&[fixed((1 << 24) + 1), dynamic()], &[fixed(1 << 24)]]).await;
    is_too_large(DataType::Bytes, &[&[fixed(100_000_000)]]).await;
}

#[tokio::test]
async fn sizes_that_would_be_too_large_are_left_out() {
    let open: Vec<Dim> = std::iter::repeat_with(dynamic).take(5).collect();
    let fixture = taking(DataType::Fp32, &[&open]);
    fixture.world.break_at(Step::Run, "a/1", fakes::Fault::Fail);
    let error = causes(&fixture.load("a").await.unwrap_err());
    assert!(error.contains("Run of a/1 fails"), "{error}");
    assert_eq!(fixture.world.times(Step::Run, "a/1"), 6, "1, 2 and 8, of zeros and of ones");
}

#[tokio::test]
async fn an_empty_input_is_as_good_as_any() {
    let fixture = taking(DataType::Fp32, &[&[fixed(0), fixed(1 << 40)], &[]]);
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.world.times(Step::Run, "a/1"), 1);
}
