//! What an operator has written down of a signature, held against the graph's own.

use std::fmt;

use crate::inference::{DataType, Dim, Signature, TensorSpec};

/// A signature as it was written down. What is not there is not checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeclaredSignature {
    /// Whether every tensor has one more dimension in front than its declared ones: the batch.
    pub batched: bool,
    /// The inputs.
    pub inputs: Vec<DeclaredTensor>,
    /// The outputs.
    pub outputs: Vec<DeclaredTensor>,
}

/// A tensor as it was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTensor {
    /// Its name.
    pub name: String,
    /// Its datatype.
    pub datatype: Option<DataType>,
    /// Its dimensions; `None` for a free one.
    pub dims: Option<Vec<Option<usize>>>,
}

impl DeclaredSignature {
    /// # Errors
    /// The first tensor that is not as declared, in words.
    pub(super) fn check(&self, signature: &Signature) -> Result<(), String> {
        let inputs = self.inputs.iter().map(|tensor| (tensor, "input", &signature.inputs));
        let outputs = self.outputs.iter().map(|tensor| (tensor, "output", &signature.outputs));
        inputs.chain(outputs).try_for_each(|(tensor, kind, specs)| self.one(tensor, kind, specs))
    }

    fn one(&self, tensor: &DeclaredTensor, kind: &str, specs: &[TensorSpec]) -> Result<(), String> {
        let name = &tensor.name;
        let Some(spec) = specs.iter().find(|spec| spec.name == *name) else {
            let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(format!(
                "{kind} '{name}' is declared, but it has only {}",
                names.join(", ")
            ));
        };
        if let Some(datatype) = tensor.datatype.filter(|datatype| *datatype != spec.datatype) {
            let is = spec.datatype;
            return Err(format!("{kind} '{name}' is declared as {datatype}, but is {is}"));
        }
        let (Some(dims), Some(shape)) = (&tensor.dims, &spec.shape) else { return Ok(()) };
        let batch = self.batched.then_some(None);
        let declared: Vec<Option<usize>> = batch.into_iter().chain(dims.iter().copied()).collect();
        let fits = |(declared, is): (&Option<usize>, &Dim)| match (declared, is) {
            (Some(declared), Dim::Fixed(is)) => declared == is,
            // What the graph leaves open, a declaration may narrow, and the other way round.
            _ => true,
        };
        if declared.len() == shape.len() && declared.iter().zip(shape).all(fits) {
            return Ok(());
        }
        let declared = declared.into_iter().map(Written).collect();
        let is = shape.iter().map(|dim| match dim {
            Dim::Fixed(size) => Written(Some(*size)),
            Dim::Dynamic(_) => Written(None),
        });
        let (declared, is) = (Shape(declared), Shape(is.collect()));
        Err(format!("{kind} '{name}' is declared with the shape {declared}, but has {is}"))
    }
}

struct Written(Option<usize>);

struct Shape(Vec<Written>);

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims =
            self.0.iter().map(|Written(dim)| dim.map_or("-1".to_owned(), |dim| dim.to_string()));
        write!(f, "[{}]", dims.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(dims: &[Option<usize>]) -> Signature {
        let dim = |dim: &Option<usize>| dim.map_or(Dim::Dynamic(String::new()), Dim::Fixed);
        let shape = Some(dims.iter().map(dim).collect());
        let spec =
            TensorSpec { name: "x".to_owned(), datatype: DataType::Fp32, shape, optional: false };
        Signature { inputs: vec![spec], outputs: Vec::new() }
    }

    #[track_caller]
    fn check(batched: bool, dims: &[Option<usize>], graph: &Signature, told: Option<&str>) {
        let (name, datatype) = ("x".to_owned(), Some(DataType::Fp32));
        let tensor = DeclaredTensor { name, datatype, dims: Some(dims.to_vec()) };
        let declared = DeclaredSignature { batched, inputs: vec![tensor], outputs: Vec::new() };
        assert_eq!(declared.check(graph).err().as_deref(), told);
    }

    #[test]
    fn the_batch_is_one_dimension_more() {
        let batch_of_four = graph(&[None, Some(4)]);
        check(true, &[Some(4)], &batch_of_four, None);
        check(false, &[None, Some(4)], &batch_of_four, None);
        let told = "input 'x' is declared with the shape [4], but has [-1, 4]";
        check(false, &[Some(4)], &batch_of_four, Some(told));
        let told = "input 'x' is declared with the shape [-1, 5], but has [-1, 4]";
        check(true, &[Some(5)], &batch_of_four, Some(told));
    }

    #[test]
    fn names_and_datatypes_must_be_the_graphs() {
        let of = |name: &str, datatype| DeclaredSignature {
            inputs: vec![DeclaredTensor {
                name: name.to_owned(),
                datatype: Some(datatype),
                dims: None,
            }],
            ..DeclaredSignature::default()
        };
        let graph = graph(&[]);
        assert_eq!(of("x", DataType::Fp32).check(&graph), Ok(()));
        let told = of("y", DataType::Fp32).check(&graph).unwrap_err();
        assert_eq!(told, "input 'y' is declared, but it has only x");
        let told = of("x", DataType::Int64).check(&graph).unwrap_err();
        assert_eq!(told, "input 'x' is declared as INT64, but is FP32");
    }
}
