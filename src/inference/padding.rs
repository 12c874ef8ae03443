//! What makes requests of different lengths the same, so that they can share a run.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};
use smallvec::SmallVec;

use super::datatype::DataType;
use super::metadata::{Dim, Signature, TensorSpec};
use super::request::PreparedRequest;
use super::tensor::{Tensor, TensorError};

/// How the inputs of a model are filled up to a common length, and its outputs cut back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Padding {
    /// For each input the element that it is filled up with, where it may be.
    fillers: Vec<Option<Vec<u8>>>,
    /// For each output what it is cut back to in each dimension, where that was filled up.
    cuts: Vec<Vec<Option<Source>>>,
    /// Dimensions that are filled up and have one name, two at a time.
    same: Vec<(Source, Source)>,
}

/// What the inputs of requests that share a run have in common.
pub(super) type Key = SmallVec<[usize; 8]>;

/// The dimension of an input from which an output has one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    input: usize,
    dim: usize,
}

impl Source {
    /// How long it is; `None` where the input was left out.
    fn of(self, request: &PreparedRequest) -> Option<usize> {
        let input = request.inputs().get(self.input)?.as_ref()?;
        input.shape().get(self.dim).copied()
    }
}

impl Padding {
    /// Each input in `values` is filled up with its value wherever a dimension other than the first is
    /// free. An output that has a free dimension of the same name is cut back.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(signature: &Signature, values: &BTreeMap<String, f64>) -> Result<Self, String> {
        if values.is_empty() {
            return Ok(Self::default());
        }
        let mut fillers = vec![None; signature.inputs.len()];
        for (name, value) in values {
            let place =
                signature.input(name).ok_or_else(|| format!("there is no input '{name}'"))?;
            let spec = &signature.inputs[place];
            if free(spec).next().is_none() {
                return Err(format!("input '{name}' has no free dimension but the first"));
            }
            let filler = element(spec.datatype, *value);
            let wrong = || format!("input '{name}' is {} and cannot have {value}", spec.datatype);
            fillers[place] = Some(filler.ok_or_else(wrong)?);
        }
        let padded =
            signature.inputs.iter().enumerate().filter(|(input, _)| fillers[*input].is_some());
        let named: Vec<(&str, Source)> = padded
            .flat_map(|(input, spec)| {
                free(spec).map(move |(dim, name)| (name, Source { input, dim }))
            })
            .collect();
        let sources: BTreeMap<&str, Source> = named.iter().copied().collect();
        let same = named.iter().filter(|(name, _)| !name.is_empty());
        let same = same.map(|(name, source)| (*source, sources[name])).collect();
        let cuts = signature.outputs.iter().map(|output| cuts(output, &sources));
        Ok(Self { cuts: cuts.collect::<Result<_, _>>()?, fillers, same })
    }

    /// Whether nothing is filled up.
    pub fn is_empty(&self) -> bool {
        self.fillers.is_empty()
    }

    fn filler(&self, input: usize) -> Option<&[u8]> {
        self.fillers.get(input)?.as_deref()
    }

    /// What has to be the same of two requests that can share a run: the shapes of their inputs but for
    /// the first dimension, and where they are filled up, about the same. `None` where dimensions of one
    /// name differ, so that filling them up would hide a mistake.
    pub(super) fn key(&self, request: &PreparedRequest) -> Option<Key> {
        self.is_sound(request).then(|| self.sizes(request).collect())
    }

    /// Whether that is the key of this request too.
    pub(super) fn has_key(&self, request: &PreparedRequest, key: &[usize]) -> bool {
        self.is_sound(request) && self.sizes(request).eq(key.iter().copied())
    }

    /// Whether dimensions of one name are the same.
    fn is_sound(&self, request: &PreparedRequest) -> bool {
        self.same.iter().all(|(one, other)| one.of(request) == other.of(request))
    }

    fn sizes(&self, request: &PreparedRequest) -> impl Iterator<Item = usize> {
        let inputs = request.inputs().iter().enumerate();
        inputs.flat_map(|(input, tensor)| {
            let shape = tensor.as_ref().map(Tensor::shape).unwrap_or_default();
            let inner = shape.iter().skip(1).copied();
            let round = self.filler(input).is_some();
            let inner = inner.map(move |size| if round { bucket(size) } else { size });
            // Of an input that was left out it is zero.
            std::iter::once(shape.len()).chain(inner)
        })
    }

    /// The inputs of one place in several requests, in the same shape but for the first dimension.
    ///
    /// # Errors
    /// [`TensorError::ShapeOverflow`].
    pub(super) fn even<'a>(
        &self,
        input: usize,
        given: &[&'a Tensor],
    ) -> Result<Vec<Cow<'a, Tensor>>, TensorError> {
        let Some(filler) = self.filler(input) else {
            return Ok(given.iter().map(|tensor| Cow::Borrowed(*tensor)).collect());
        };
        let longest = |dim: usize| given.iter().map(|tensor| tensor.shape()[dim]).max();
        let fit = |tensor: &&Tensor| {
            let rows = tensor.shape().iter().take(1).copied();
            let inner = (1..tensor.shape().len()).filter_map(longest);
            tensor.fitted(&rows.chain(inner).collect::<Vec<_>>(), filler).map(Cow::Owned)
        };
        given.iter().map(fit).collect()
    }

    /// An output as the request would have got it alone.
    ///
    /// # Errors
    /// [`TensorError::ShapeOverflow`].
    pub(super) fn cut(
        &self,
        (output, tensor): (usize, Tensor),
        request: &PreparedRequest,
    ) -> Result<Tensor, TensorError> {
        let Some(cuts) = self.cuts.get(output) else { return Ok(tensor) };
        let dims = tensor.shape().iter().enumerate().map(|(dim, whole)| {
            let source = cuts.get(dim).copied().flatten();
            source.and_then(|source| source.of(request)).map_or(*whole, |size| size.min(*whole))
        });
        let shape: Vec<usize> = dims.collect();
        tensor.fitted(&shape, &vec![0; tensor.datatype().size().unwrap_or(1)])
    }
}

/// The free dimensions of an input or output but the first, with their names.
fn free(spec: &TensorSpec) -> impl Iterator<Item = (usize, &str)> {
    let dims = spec.shape.iter().flatten().enumerate().skip(1);
    dims.filter_map(|(place, dim)| match dim {
        Dim::Dynamic(name) => Some((place, name.as_str())),
        Dim::Fixed(_) => None,
    })
}

fn cuts(
    output: &TensorSpec,
    sources: &BTreeMap<&str, Source>,
) -> Result<Vec<Option<Source>>, String> {
    let Some(dims) = &output.shape else {
        return Err(format!("output '{}' has no declared rank", output.name));
    };
    let mut cuts = vec![None; dims.len()];
    for (dim, name) in free(output) {
        let source = sources.get(name).filter(|_| !name.is_empty()).ok_or_else(|| {
            let output = &output.name;
            format!("output '{output}' has a free dimension '{name}' that no padded input has")
        })?;
        if output.datatype == DataType::Bytes {
            return Err(format!("output '{}' is BYTES and cannot be cut back", output.name));
        }
        cuts[dim] = Some(*source);
    }
    Ok(cuts)
}

/// Sizes that share a run: what is filled up is a fifth of it at most, or sixteen.
fn bucket(size: usize) -> usize {
    if size <= 16 {
        return 16;
    }
    let step = 1 << (size.ilog2() - 2);
    size.div_ceil(step).saturating_mul(step)
}

/// One element, little-endian; `None` for a value that the datatype does not have.
fn element(datatype: DataType, value: f64) -> Option<Vec<u8>> {
    // Of a number that is whole, it has no point.
    let text = (value + 0.0).to_string();
    macro_rules! number {
        ($type:ty) => {
            text.parse::<$type>().ok()?.to_le_bytes().to_vec()
        };
    }
    Some(match datatype {
        DataType::Bool => vec![text.parse::<u8>().ok().filter(|byte| *byte < 2)?],
        DataType::Uint8 => number!(u8),
        DataType::Uint16 => number!(u16),
        DataType::Uint32 => number!(u32),
        DataType::Uint64 => number!(u64),
        DataType::Int8 => number!(i8),
        DataType::Int16 => number!(i16),
        DataType::Int32 => number!(i32),
        DataType::Int64 => number!(i64),
        DataType::Fp16 => f16::from_f64(value).to_le_bytes().to_vec(),
        DataType::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        DataType::Fp32 => number!(f32),
        DataType::Fp64 => value.to_le_bytes().to_vec(),
        DataType::Bytes => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, datatype: DataType, dims: &[&str]) -> TensorSpec {
        let dim = |text: &&str| {
            text.parse().map_or_else(|_| Dim::Dynamic((*text).to_owned()), Dim::Fixed)
        };
        let shape = Some(dims.iter().map(dim).collect());
        TensorSpec { name: name.to_owned(), datatype, shape, optional: false }
    }

    fn padding(outputs: Vec<TensorSpec>, values: &[(&str, f64)]) -> Result<Padding, String> {
        let ids = spec("ids", DataType::Int64, &["batch", "length"]);
        let kind = spec("kind", DataType::Uint8, &["batch", "1"]);
        let text = spec("text", DataType::Bytes, &["batch", "length"]);
        let signature = Signature { inputs: vec![ids, kind, text], outputs };
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value));
        Padding::new(&signature, &values.collect())
    }

    #[test]
    fn what_cannot_be_padded_is_told() {
        let refused = |outputs, values: &[_]| padding(outputs, values).unwrap_err();
        assert_eq!(refused(vec![], &[("x", 0.0)]), "there is no input 'x'");
        let fixed = refused(vec![], &[("kind", 0.0)]);
        assert_eq!(fixed, "input 'kind' has no free dimension but the first");
        assert_eq!(refused(vec![], &[("ids", 0.5)]), "input 'ids' is INT64 and cannot have 0.5");
        assert_eq!(refused(vec![], &[("text", 0.0)]), "input 'text' is BYTES and cannot have 0");
        let other = refused(vec![spec("y", DataType::Fp32, &["batch", "found"])], &[("ids", 0.0)]);
        assert_eq!(other, "output 'y' has a free dimension 'found' that no padded input has");
        let unnamed = refused(vec![spec("y", DataType::Fp32, &["batch", ""])], &[("ids", 0.0)]);
        assert_eq!(unnamed, "output 'y' has a free dimension '' that no padded input has");
        let texts =
            refused(vec![spec("y", DataType::Bytes, &["batch", "length"])], &[("ids", 0.0)]);
        assert_eq!(texts, "output 'y' is BYTES and cannot be cut back");
        assert!(
            padding(vec![spec("y", DataType::Bytes, &["batch", "3"])], &[("ids", 0.0)]).is_ok()
        );
        assert!(padding(vec![], &[]).unwrap().is_empty());
    }

    #[test]
    fn lengths_that_are_alike_share_a_bucket() {
        for (size, expected) in [(0, 16), (1, 16), (16, 16), (17, 20), (20, 20), (21, 24), (33, 40)]
        {
            assert_eq!(bucket(size), expected, "{size}");
        }
        for size in 17..5000 {
            assert!(bucket(size) >= size && (bucket(size) - size) * 5 <= bucket(size), "{size}");
        }
        assert_eq!(bucket(usize::MAX), usize::MAX);
    }

    #[test]
    fn a_filler_is_one_element_of_the_datatype() {
        for datatype in DataType::ALL {
            let size = element(datatype, 1.0).map(|element| element.len());
            assert_eq!(size, datatype.size(), "{datatype}");
        }
        for (datatype, value) in [
            (DataType::Bool, 2.0),
            (DataType::Uint8, -1.0),
            (DataType::Int8, 128.0),
            (DataType::Int64, 1e19),
            (DataType::Int32, f64::NAN),
        ] {
            assert_eq!(element(datatype, value), None, "{datatype} {value}");
        }
        assert_eq!(element(DataType::Int16, -2.0), Some(vec![0xfe, 0xff]));
        assert_eq!(element(DataType::Uint8, -0.0), Some(vec![0]));
        assert_eq!(element(DataType::Fp32, 0.1), Some(0.1_f32.to_le_bytes().to_vec()));
    }
}
