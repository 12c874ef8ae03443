use super::*;
use crate::inference::DataType;
use crate::model::ModelName;

/// `name` of a datatype and dimensions, `-1` for a free one.
fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    let dim = |dim: &i64| usize::try_from(*dim).map_or(Dim::Dynamic(String::new()), Dim::Fixed);
    let shape = Some(dims.iter().map(dim).collect());
    TensorSpec { name: name.to_owned(), datatype, shape, optional: false }
}

fn floats(name: &str) -> TensorSpec {
    spec(name, DataType::Fp32, &[-1, 4])
}

fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Signature {
    Signature { inputs, outputs }
}

/// `x` to `y`.
fn plain() -> Signature {
    signature(vec![floats("x")], vec![floats("y")])
}

fn named(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(own, tensor)| ((*own).to_owned(), (*tensor).to_owned())).collect()
}

/// A step with the tensors of its inputs and outputs.
fn step(model: &str, inputs: &[(&str, &str)], outputs: &[(&str, &str)]) -> StepDefinition {
    StepDefinition {
        model: ModelName::new(model).unwrap(),
        version: None,
        inputs: named(inputs),
        outputs: (!outputs.is_empty()).then(|| named(outputs)),
    }
}

fn of(steps: Vec<StepDefinition>) -> EnsembleDefinition {
    EnsembleDefinition { inputs: None, outputs: None, steps }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[track_caller]
fn refused(definition: &EnsembleDefinition, signatures: &[Signature], told: &str) {
    let error = Plan::new(definition, signatures).unwrap_err().to_string();
    assert_eq!(error, told);
}

/// `a` and `b` in a row.
fn row() -> EnsembleDefinition {
    of(vec![step("a", &[], &[("y", "mid")]), step("b", &[("x", "mid")], &[("y", "z")])])
}

#[test]
fn what_is_not_said_follows_from_the_steps() {
    let plan = Plan::new(&row(), &[plain(), plain()]).unwrap();
    assert_eq!(plan.signature, signature(vec![floats("x")], vec![floats("z")]));
    assert_eq!(plan.names, ["x", "mid", "z"]);
    assert_eq!((&plan.inputs, &plan.outputs), (&vec![0], &vec![2]));
    let first = PlannedStep { inputs: vec![("x".into(), 0)], outputs: vec![("y".into(), 1)] };
    assert_eq!(plan.steps[0], first);
    let both = EnsembleDefinition { outputs: Some(names(&["z", "mid"])), ..row() };
    let plan = Plan::new(&both, &[plain(), plain()]).unwrap();
    assert_eq!(plan.signature.outputs, [floats("z"), floats("mid")]);
    let same_names = of(vec![step("a", &[], &[]), step("b", &[("q", "y")], &[])]);
    let second = signature(vec![floats("q")], vec![floats("r")]);
    let plan = Plan::new(&same_names, &[plain(), second]).unwrap();
    assert_eq!(plan.signature, signature(vec![floats("x")], vec![floats("r")]));
}

#[test]
fn only_what_is_needed_runs() {
    let steps = vec![
        step("a", &[], &[("y", "one")]),
        step("b", &[], &[("y", "two")]),
        step("c", &[("x", "one")], &[("y", "three")]),
    ];
    let plan = Plan::new(&of(steps), &[plain(), plain(), plain()]).unwrap();
    let place = |name: &str| plan.names.iter().position(|it| it == name).unwrap();
    assert_eq!(plan.needed(&[place("three")]), [0, 2]);
    assert_eq!(plan.needed(&[place("two")]), [1]);
    assert_eq!(plan.needed(&plan.outputs), [0, 1, 2]);
}

#[test]
fn an_input_of_several_steps_is_as_narrow_as_all_of_them() {
    let wide = || signature(vec![spec("x", DataType::Fp32, &[-1, -1])], vec![floats("y")]);
    let unknown = TensorSpec { shape: None, ..floats("x") };
    let loose = signature(vec![unknown], vec![floats("y")]);
    let steps = vec![
        step("a", &[], &[("y", "one")]),
        step("b", &[], &[("y", "two")]),
        step("c", &[], &[("y", "three")]),
    ];
    let plan = Plan::new(&of(steps), &[loose, wide(), plain()]).unwrap();
    assert_eq!(plan.signature.inputs, [floats("x")]);
}

#[test]
fn an_optional_input_is_left_out_unless_it_is_named() {
    let bias = TensorSpec { optional: true, ..floats("bias") };
    let model = || signature(vec![floats("x"), bias.clone()], vec![floats("y")]);
    let plan = Plan::new(&of(vec![step("a", &[], &[])]), &[model()]).unwrap();
    assert_eq!(plan.signature.inputs, [floats("x")]);
    let with = of(vec![step("a", &[("bias", "b")], &[])]);
    let plan = Plan::new(&with, &[model()]).unwrap();
    let expected = TensorSpec { name: "b".to_owned(), ..bias };
    assert_eq!(plan.signature.inputs, [floats("x"), expected]);
}

#[test]
fn names_that_are_wrong_are_told() {
    let two = [plain(), plain()];
    let bad = of(vec![step("a", &[("q", "x")], &[])]);
    refused(&bad, &two, "step 1 ('a') has no input 'q', its inputs are 'x'");
    let bad = of(vec![step("a", &[], &[("p", "x")])]);
    refused(&bad, &two, "step 1 ('a') has no output 'p', its outputs are 'y'");
    let bad = of(vec![step("a", &[], &[]), step("b", &[], &[])]);
    refused(&bad, &two, "tensor 'y' is given by step 1 ('a') and by step 2 ('b')");
    let bad = EnsembleDefinition { inputs: Some(names(&["w"])), ..row() };
    refused(&bad, &two, "input 'w' of the ensemble is taken by no step");
    let bad = EnsembleDefinition { inputs: Some(names(&["x", "x"])), ..row() };
    refused(&bad, &two, "'x' is more than once among the inputs of the ensemble");
    let bad = EnsembleDefinition { inputs: Some(names(&["x", "mid"])), ..row() };
    let told = "tensor 'mid' is given by the request, as its input, and by step 1 ('a')";
    refused(&bad, &two, told);
    let bad = EnsembleDefinition { inputs: Some(names(&[])), ..row() };
    let told = "tensor 'x', which is input 'x' of step 1 ('a'), is given by no step and is no \
                input of the ensemble";
    refused(&bad, &two, told);
    for output in ["w", "x"] {
        let bad = EnsembleDefinition { outputs: Some(names(&[output])), ..row() };
        let told = format!("output '{output}' of the ensemble is given by no step");
        refused(&bad, &two, &told);
    }
}

#[test]
fn a_circle_is_told_step_by_step() {
    let itself = of(vec![step("a", &[("x", "t")], &[("y", "t")])]);
    let told = "tensors go round in a circle: step 1 ('a') gives 't' to step 1 ('a')";
    refused(&itself, &[plain()], told);
    let steps = vec![
        step("before", &[], &[("y", "begin")]),
        step("a", &[("x", "u"), ("z", "begin")], &[("y", "t")]),
        step("b", &[("x", "t")], &[("y", "u")]),
        step("after", &[("x", "t")], &[("y", "end")]),
    ];
    let two_inputs = signature(vec![floats("x"), floats("z")], vec![floats("y")]);
    let signatures = [plain(), two_inputs, plain(), plain()];
    let told = "tensors go round in a circle: step 2 ('a') gives 't' to step 3 ('b'), which gives \
                'u' to step 2 ('a')";
    refused(&of(steps), &signatures, told);
}

#[test]
fn what_does_not_fit_is_told_with_both_ends() {
    let wants = |spec: TensorSpec| signature(vec![spec], vec![floats("y")]);
    for (spec, is) in [
        (spec("x", DataType::Int64, &[-1, 4]), "INT64 [-1,4]"),
        (spec("x", DataType::Fp32, &[-1]), "FP32 [-1]"),
        (spec("x", DataType::Fp32, &[-1, 5]), "FP32 [-1,5]"),
    ] {
        let told = format!(
            "tensor 'mid' is FP32 [-1,4] as output 'y' of step 1 ('a'), and cannot be {is} as \
             input 'x' of step 2 ('b')"
        );
        refused(&row(), &[plain(), wants(spec)], &told);
    }
    let both = of(vec![step("a", &[], &[("y", "one")]), step("b", &[], &[("y", "two")])]);
    let told = "tensor 'x' is FP32 [-1,4] as input 'x' of step 1 ('a'), and cannot be INT64 [1] as \
                input 'x' of step 2 ('b')";
    refused(&both, &[plain(), wants(spec("x", DataType::Int64, &[1]))], told);
    let free = wants(spec("x", DataType::Fp32, &[8, -1]));
    assert!(Plan::new(&row(), &[plain(), free]).is_ok(), "that is for requests to tell");
}
