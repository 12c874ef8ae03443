//! Whether those who call one version can call another as they do.

use crate::inference::{Dim, Signature, TensorSpec};

/// What stands in the way of answering the callers of `old` by `new`, in words; empty when nothing
/// does. `new` may take more than `old` and give more.
pub(super) fn differences(old: &Signature, new: &Signature) -> Vec<String> {
    let mut differences = Vec::new();
    for spec in &old.inputs {
        match find(&new.inputs, &spec.name) {
            None => differences.push(format!("input '{}' is gone", spec.name)),
            // The new one has to take whatever the old one took.
            Some(now) => differences.extend(difference("input", spec, now, takes(now, spec))),
        }
    }
    for spec in new.inputs.iter().filter(|spec| !spec.optional) {
        match find(&old.inputs, &spec.name) {
            None => differences.push(format!("input '{}' is new and required", spec.name)),
            Some(before) if before.optional => {
                differences.push(format!("input '{}' is required now", spec.name));
            }
            Some(_) => {}
        }
    }
    for spec in &old.outputs {
        match find(&new.outputs, &spec.name) {
            None => differences.push(format!("output '{}' is gone", spec.name)),
            // The new one must give nothing that the old one did not.
            Some(now) => differences.extend(difference("output", spec, now, takes(spec, now))),
        }
    }
    differences
}

fn find<'a>(specs: &'a [TensorSpec], name: &str) -> Option<&'a TensorSpec> {
    specs.iter().find(|spec| spec.name == name)
}

fn difference(what: &str, old: &TensorSpec, new: &TensorSpec, fits: bool) -> Option<String> {
    let (was, is) = (describe(old), describe(new));
    let same = old.datatype == new.datatype && fits;
    (!same).then(|| format!("{what} '{}' was {was} and is {is}", old.name))
}

/// Whether every shape of `narrow` is one of `wide`.
fn takes(wide: &TensorSpec, narrow: &TensorSpec) -> bool {
    let Some(wide) = &wide.shape else { return true };
    let Some(narrow) = &narrow.shape else { return false };
    let fits = |(wide, narrow): (&Dim, &Dim)| match (wide, narrow) {
        (Dim::Dynamic(_), _) => true,
        (Dim::Fixed(wide), Dim::Fixed(narrow)) => wide == narrow,
        (Dim::Fixed(_), Dim::Dynamic(_)) => false,
    };
    wide.len() == narrow.len() && wide.iter().zip(narrow).all(fits)
}

/// A datatype and a shape as the protocol writes them.
fn describe(spec: &TensorSpec) -> String {
    let datatype = spec.datatype.name();
    let Some(shape) = &spec.shape else { return format!("{datatype} of any shape") };
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Dynamic(_) => "-1".to_owned(),
    };
    format!("{datatype} [{}]", shape.iter().map(dim).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::DataType;

    /// A tensor by its name, its shape with -1 for what is free, and whether it may be left out.
    fn spec(name: &str, dims: &[i64]) -> TensorSpec {
        let dim = |dim: &i64| match usize::try_from(*dim) {
            Ok(size) => Dim::Fixed(size),
            Err(_) => Dim::Dynamic("n".to_owned()),
        };
        let shape = Some(dims.iter().map(dim).collect());
        TensorSpec { name: name.to_owned(), datatype: DataType::Fp32, shape, optional: false }
    }

    fn optional(name: &str) -> TensorSpec {
        TensorSpec { optional: true, ..spec(name, &[-1]) }
    }

    #[track_caller]
    fn inputs(old: Vec<TensorSpec>, new: Vec<TensorSpec>, expected: &[&str]) {
        let signature = |inputs| Signature { inputs, outputs: Vec::new() };
        assert_eq!(differences(&signature(old), &signature(new)), expected);
    }

    #[track_caller]
    fn outputs(old: Vec<TensorSpec>, new: Vec<TensorSpec>, expected: &[&str]) {
        let signature = |outputs| Signature { inputs: Vec::new(), outputs };
        assert_eq!(differences(&signature(old), &signature(new)), expected);
    }

    #[test]
    fn inputs_may_become_wider() {
        inputs(vec![spec("x", &[1, 4])], vec![spec("x", &[-1, 4])], &[]);
        inputs(vec![spec("x", &[1])], vec![TensorSpec { shape: None, ..spec("x", &[]) }], &[]);
        inputs(vec![], vec![optional("bias")], &[]);
        let narrower = "input 'x' was FP32 [-1, 4] and is FP32 [1, 4]";
        inputs(vec![spec("x", &[-1, 4])], vec![spec("x", &[1, 4])], &[narrower]);
        let rank = "input 'x' was FP32 [4] and is FP32 [4, 1]";
        inputs(vec![spec("x", &[4])], vec![spec("x", &[4, 1])], &[rank]);
        let other = TensorSpec { datatype: DataType::Int64, ..spec("x", &[4]) };
        let datatype = "input 'x' was FP32 [4] and is INT64 [4]";
        inputs(vec![spec("x", &[4])], vec![other], &[datatype]);
        let gone = "input 'x' is gone";
        inputs(
            vec![spec("x", &[])],
            vec![spec("y", &[])],
            &[gone, "input 'y' is new and required"],
        );
        inputs(vec![optional("x")], vec![spec("x", &[-1])], &["input 'x' is required now"]);
    }

    #[test]
    fn outputs_may_become_narrower_and_more() {
        outputs(vec![spec("y", &[-1])], vec![spec("y", &[4]), spec("z", &[])], &[]);
        let wider = "output 'y' was FP32 [4] and is FP32 [-1]";
        outputs(vec![spec("y", &[4])], vec![spec("y", &[-1])], &[wider]);
        outputs(vec![spec("y", &[4])], vec![], &["output 'y' is gone"]);
    }
}
