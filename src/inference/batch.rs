//! Several requests as one, and its answer divided among them.

use std::ops::Range;

use super::padding::Padding;
use super::request::{Positions, PreparedRequest};
use super::tensor::{Tensor, TensorError};

/// How many entries a request brings into a batch: the first dimension of all its inputs. `None` where it
/// cannot share a run, as it has no inputs, no entries, or not the same number in each input.
pub(super) fn entries(request: &PreparedRequest) -> Option<usize> {
    let mut rows = request.inputs().iter().flatten().map(Tensor::rows);
    let first = rows.next()?.filter(|rows| *rows > 0)?;
    rows.all(|rows| rows == Some(first)).then_some(first)
}

/// Requests that are run as one.
#[derive(Debug)]
pub struct Batch<'a> {
    request: PreparedRequest,
    parts: Vec<Part<'a>>,
    padding: &'a Padding,
}

#[derive(Debug)]
struct Part<'a> {
    request: &'a PreparedRequest,
    rows: Range<usize>,
}

/// Why the answer to a batch could not be divided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Indivisible {
    /// An output has another number of entries than the inputs had.
    #[error("it answers a batch of {given} with {got} entries in an output")]
    Entries {
        /// Those of the inputs.
        given: usize,
        /// Those of the output.
        got: usize,
    },
    /// There is another number of outputs than were asked for.
    #[error("it answers a batch with {0} outputs")]
    Outputs(usize),
    /// A part of an output cannot be made a tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl<'a> Batch<'a> {
    /// Joins requests, which are copied once. `None` where they do not fit each other: all have to have
    /// the same inputs of the same shapes, but for their first dimension and what is padded.
    pub fn of(requests: &[&'a PreparedRequest], padding: &'a Padding) -> Option<Self> {
        let key = padding.key(requests.first()?)?;
        let mut parts = Vec::with_capacity(requests.len());
        let mut end = 0_usize;
        for request in requests {
            let begin = end;
            end = begin.checked_add(entries(request)?)?;
            parts.push(Part { request, rows: begin..end });
            if !padding.has_key(request, &key) {
                return None;
            }
        }
        let slots = 0..requests[0].inputs().len();
        let inputs = slots.map(|slot| joined(slot, requests, padding)).collect::<Result<_, _>>();
        let mut outputs: Positions =
            requests.iter().flat_map(|request| request.outputs()).copied().collect();
        outputs.sort_unstable();
        outputs.dedup();
        let request = PreparedRequest::of_parts(inputs.ok()?, outputs);
        Some(Self { request, parts, padding })
    }

    /// All of them in one.
    pub fn request(&self) -> &PreparedRequest {
        &self.request
    }

    /// How many entries they have together.
    pub fn entries(&self) -> usize {
        self.parts.last().map_or(0, |part| part.rows.end)
    }

    /// What each of them would have been answered alone, in their order. Nothing is copied but what was
    /// padded.
    ///
    /// # Errors
    /// [`Indivisible`] where the model does not answer each entry of a batch.
    pub fn divide(&self, outputs: &[Tensor]) -> Result<Vec<Vec<Tensor>>, Indivisible> {
        let given = self.entries();
        if outputs.len() != self.request.outputs().len() {
            return Err(Indivisible::Outputs(outputs.len()));
        }
        if let Some(output) = outputs.iter().find(|output| output.rows() != Some(given)) {
            return Err(Indivisible::Entries { given, got: output.rows().unwrap_or(0) });
        }
        let parts = self.parts.iter().map(|part| {
            let wanted = part.request.outputs().iter();
            wanted.map(|output| self.part(part, (*output, outputs))).collect()
        });
        parts.collect::<Result<_, TensorError>>().map_err(Indivisible::from)
    }

    fn part(
        &self,
        Part { request, rows }: &Part<'_>,
        (output, outputs): (usize, &[Tensor]),
    ) -> Result<Tensor, TensorError> {
        let place = self.request.outputs().binary_search(&output);
        let whole = &outputs[place.expect("the batch asks for what its parts ask for")];
        self.padding.cut((output, whole.row_range(rows.clone())), request)
    }
}

fn joined(
    slot: usize,
    requests: &[&PreparedRequest],
    padding: &Padding,
) -> Result<Option<Tensor>, TensorError> {
    let given: Vec<&Tensor> =
        requests.iter().filter_map(|request| request.inputs()[slot].as_ref()).collect();
    if given.is_empty() {
        return Ok(None);
    }
    Tensor::joined(&padding.even(slot, &given)?).map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::datatype::DataType;
    use super::super::metadata::{Dim, Signature, TensorSpec};
    use super::super::request::{InferenceRequest, NamedTensor};
    use super::*;

    fn spec(name: &str, inner: &[&str]) -> TensorSpec {
        let dims = std::iter::once("batch").chain(inner.iter().copied());
        let shape = Some(dims.map(|name| Dim::Dynamic(name.to_owned())).collect());
        TensorSpec { name: name.to_owned(), datatype: DataType::Int32, shape, optional: false }
    }

    fn signature() -> Signature {
        let optional = TensorSpec { optional: true, ..spec("bias", &[]) };
        let outputs = vec![spec("each", &["length"]), spec("sum", &[]), spec("last", &["other"])];
        Signature { inputs: vec![spec("x", &["length"]), optional], outputs }
    }

    fn tensor(shape: &[usize], values: &[i32]) -> Tensor {
        Tensor::from_vec(shape.to_vec(), values.to_vec()).unwrap()
    }

    fn request(inputs: &[(&str, Tensor)], outputs: &[&str]) -> PreparedRequest {
        let named = inputs
            .iter()
            .map(|(name, tensor)| NamedTensor { name: (*name).to_owned(), tensor: tensor.clone() });
        let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
        let request = InferenceRequest { inputs: named.collect(), outputs };
        PreparedRequest::new(&signature(), request).unwrap()
    }

    fn row(values: &[i32]) -> PreparedRequest {
        request(&[("x", tensor(&[1, values.len()], values))], &["each"])
    }

    #[test]
    fn requests_are_joined_and_their_answer_is_divided() {
        let plain = Padding::default();
        let one = request(&[("x", tensor(&[1, 2], &[1, 2]))], &["sum", "each"]);
        let two = request(&[("x", tensor(&[2, 2], &[3, 4, 5, 6]))], &["each"]);
        let batch = Batch::of(&[&one, &two], &plain).unwrap();
        assert_eq!((batch.entries(), batch.request().outputs()), (3, &[0, 1][..]));
        let joined = tensor(&[3, 2], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(batch.request().inputs(), [Some(joined.clone()), None]);
        let parts = batch.divide(&[joined, tensor(&[3], &[3, 7, 11])]).unwrap();
        let first = vec![tensor(&[1], &[3]), tensor(&[1, 2], &[1, 2])];
        assert_eq!(parts, [first, vec![tensor(&[2, 2], &[3, 4, 5, 6])]]);
    }

    #[test]
    fn an_answer_of_another_form_is_not_divided() {
        let plain = Padding::default();
        let (one, two) = (row(&[1]), row(&[2]));
        let batch = Batch::of(&[&one, &two], &plain).unwrap();
        let refused = |outputs: &[Tensor]| batch.divide(outputs).unwrap_err().to_string();
        let told = "it answers a batch of 2 with 1 entries in an output";
        assert_eq!(refused(&[tensor(&[1, 1], &[1])]), told);
        assert_eq!(refused(&[tensor(&[], &[1])]), told.replace("with 1", "with 0"));
        assert_eq!(refused(&[]), "it answers a batch with 0 outputs");
    }

    #[test]
    fn what_does_not_fit_is_not_joined() {
        let plain = Padding::default();
        let joins =
            |one: PreparedRequest, two: PreparedRequest| Batch::of(&[&one, &two], &plain).is_some();
        let bias = |rows: usize| ("bias", tensor(&[rows], &vec![0; rows]));
        let both = |x, rows| request(&[("x", tensor(&[x, 1], &vec![0; x])), bias(rows)], &[]);
        assert!(joins(row(&[1]), row(&[2])));
        assert!(joins(both(1, 1), both(2, 2)));
        assert!(!joins(row(&[1]), row(&[2, 3])), "another length");
        assert!(!joins(row(&[1]), both(1, 1)), "an input is left out");
        assert!(!joins(both(1, 1), both(2, 1)), "inputs of one request disagree");
        let none = request(&[("x", tensor(&[0, 1], &[]))], &[]);
        assert!(!joins(none, row(&[1])), "it has no entries");
        assert!(Batch::of(&[], &plain).is_none());
    }

    #[test]
    fn what_is_padded_is_cut_back() {
        let mut signature = signature();
        let values = BTreeMap::from([("x".to_owned(), 9.0)]);
        let told = Padding::new(&signature, &values).unwrap_err();
        assert!(told.contains("'last' has a free dimension 'other'"), "{told}");
        signature.outputs.pop();
        let padding = Padding::new(&signature, &values).unwrap();
        let (one, two, far) = (row(&[1]), row(&[2, 3]), row(&[0; 17]));
        assert!(Batch::of(&[&one, &far], &padding).is_none(), "too much would be filled up");
        let batch = Batch::of(&[&one, &two], &padding).unwrap();
        let filled = tensor(&[2, 2], &[1, 9, 2, 3]);
        assert_eq!(batch.request().inputs()[0], Some(filled.clone()));
        let parts = batch.divide(&[filled]).unwrap();
        assert_eq!(parts, [[tensor(&[1, 1], &[1])], [tensor(&[1, 2], &[2, 3])]]);
    }
}
