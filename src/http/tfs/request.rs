//! The body of a request to predict: rows, or columns.

use std::borrow::Cow;

use crate::http::error::ApiError;
use crate::inference::{NamedTensor, Signature, Tensor, TensorSpec};
use crate::json_tensors::{Column, Cursor, DataError, JsonError, column};
use crate::oip::Refusal;

/// The only signature there is.
pub(super) const SIGNATURE: &str = "serving_default";

/// What is to be predicted.
#[derive(Debug)]
pub(super) struct Predict {
    pub(super) inputs: Vec<NamedTensor>,
    pub(super) form: Form,
}

/// How it was asked, and is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Each of so many instances for itself.
    Rows(usize),
    /// All of them at once.
    Columns,
}

impl Predict {
    /// Reads a body for a model of this signature.
    ///
    /// # Errors
    /// The first thing that is wrong with it, named.
    pub(super) fn read(body: &[u8], signature: &Signature) -> Result<Self, ApiError> {
        let mut predict = None;
        let mut cursor = Cursor::new(body);
        cursor.object("", |cursor, key| {
            let read = match key {
                "instances" => rows(cursor, signature)?,
                "inputs" => columns(cursor, signature)?,
                "signature_name" => return is_the_signature(&cursor.value::<String>(key)?),
                _ => return Ok(cursor.skip()?),
            };
            match predict.replace(read) {
                None => Ok(()),
                Some(_) => {
                    Err(Refusal::invalid("give either 'instances' or 'inputs', once").into())
                }
            }
        })?;
        cursor.end()?;
        predict.ok_or_else(|| Refusal::invalid("it has neither 'instances' nor 'inputs'").into())
    }
}

fn is_the_signature(name: &str) -> Result<(), ApiError> {
    if name == SIGNATURE || name.is_empty() {
        return Ok(());
    }
    let text = format!("there is no signature '{name}', only {SIGNATURE}");
    Err(Refusal::invalid(text).into())
}

/// Instances, each a value of the only input, or an object of values by the names of the inputs.
fn rows(cursor: &mut Cursor<'_>, signature: &Signature) -> Result<Predict, ApiError> {
    let (mut columns, mut count) = (Columns::new(signature), 0);
    cursor.array("instances", |cursor, row| {
        count = row + 1;
        if is_by_name(cursor)? {
            let path = format!("instances[{row}]");
            cursor.object(&path, |cursor, name| {
                let place = columns.named(name)?;
                columns.read(place, cursor, row)
            })?;
        } else {
            let place = columns.only()?;
            columns.read(place, cursor, row)?;
        }
        columns.are_even(count)
    })?;
    if count == 0 {
        return Err(Refusal::invalid("'instances' has none").into());
    }
    let inputs = columns.tensors(<dyn Column>::rows)?;
    Ok(Predict { inputs, form: Form::Rows(count) })
}

/// The whole value of the only input, or an object of them by the names of the inputs.
fn columns(cursor: &mut Cursor<'_>, signature: &Signature) -> Result<Predict, ApiError> {
    let mut columns = Columns::new(signature);
    if is_by_name(cursor)? {
        cursor.object("inputs", |cursor, name| {
            let place = columns.named(name)?;
            columns.read(place, cursor, 0)
        })?;
    } else {
        let place = columns.only()?;
        columns.read(place, cursor, 0)?;
    }
    Ok(Predict { inputs: columns.tensors(<dyn Column>::one)?, form: Form::Columns })
}

/// Whether an object comes next that is not a value itself, as `{"b64": ...}` is.
fn is_by_name(cursor: &mut Cursor<'_>) -> Result<bool, JsonError> {
    let mut ahead = cursor.clone();
    if !ahead.take(b'{') {
        return Ok(false);
    }
    if ahead.peek() != Some(b'"') {
        return Ok(true);
    }
    let key: Cow<'_, str> = ahead.value("")?;
    Ok(key != "b64")
}

/// The values of each input so far.
struct Columns<'a> {
    specs: &'a [TensorSpec],
    columns: Vec<Option<Box<dyn Column>>>,
}

impl<'a> Columns<'a> {
    fn new(signature: &'a Signature) -> Self {
        let specs = signature.inputs.as_slice();
        Self { specs, columns: specs.iter().map(|_| None).collect() }
    }

    /// The place of the input of this name.
    fn named(&self, name: &str) -> Result<usize, Refusal> {
        let place = self.specs.iter().position(|spec| spec.name == name);
        let unknown = || {
            let takes = self.names();
            Refusal::invalid(format!("unexpected input '{name}', the model takes {takes}"))
        };
        place.ok_or_else(unknown)
    }

    /// The place of the only input, or the only one that may not be left out.
    fn only(&self) -> Result<usize, Refusal> {
        if self.specs.len() == 1 {
            return Ok(0);
        }
        let mut required = (0..self.specs.len()).filter(|place| !self.specs[*place].optional);
        match (required.next(), required.next()) {
            (Some(place), None) => Ok(place),
            _ => Err(Refusal::invalid(format!(
                "values have to be given by the names of the inputs, the model takes {}",
                self.names()
            ))),
        }
    }

    fn names(&self) -> String {
        let quoted: Vec<String> =
            self.specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
        quoted.join(", ")
    }

    /// Reads the value that an input has in a row.
    fn read(&mut self, place: usize, cursor: &mut Cursor<'_>, row: usize) -> Result<(), ApiError> {
        let TensorSpec { name, datatype, .. } = &self.specs[place];
        let column = self.columns[place].get_or_insert_with(|| column(*datatype));
        if column.count() > row {
            return Err(Refusal::invalid(format!("input '{name}' is given more than once")).into());
        }
        column.read(cursor).map_err(|error| wrong(name, error))
    }

    /// Whether all inputs that are given have as many values.
    fn are_even(&self, rows: usize) -> Result<(), ApiError> {
        let given = self.specs.iter().zip(&self.columns);
        let counted = given.filter_map(|(spec, column)| Some((spec, column.as_ref()?.count())));
        match counted.into_iter().find(|(_, count)| *count != rows) {
            None => Ok(()),
            Some((spec, _)) => Err(Refusal::invalid(format!(
                "input '{}' is in some of the instances, and in others it is not: see instances[{}]",
                spec.name,
                rows - 1
            ))
            .into()),
        }
    }

    fn tensors(
        self,
        tensor: fn(Box<dyn Column>) -> Result<Tensor, DataError>,
    ) -> Result<Vec<NamedTensor>, ApiError> {
        let given = self.specs.iter().zip(self.columns);
        let given = given.filter_map(|(spec, column)| Some((&spec.name, column?)));
        let named = given.map(|(name, column)| {
            let tensor = tensor(column).map_err(|error| wrong(name, error))?;
            Ok(NamedTensor { name: name.clone(), tensor })
        });
        named.collect()
    }
}

/// What is wrong with the values of an input.
fn wrong(name: &str, error: DataError) -> ApiError {
    match error {
        DataError::Json(error) => error.into(),
        other => Refusal::invalid(format!("input '{name}': {other}")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::DataType;

    fn signature(inputs: &[(&str, DataType)]) -> Signature {
        let spec = |(name, datatype): &(&str, DataType)| TensorSpec {
            name: (*name).to_owned(),
            datatype: *datatype,
            shape: None,
            optional: false,
        };
        Signature { inputs: inputs.iter().map(spec).collect(), outputs: Vec::new() }
    }

    fn pair() -> Signature {
        signature(&[("a", DataType::Int32), ("b", DataType::Bytes)])
    }

    /// The names and shapes of the inputs.
    fn shapes(body: &str, signature: &Signature) -> (Vec<(String, Vec<usize>)>, Form) {
        let Predict { inputs, form } = Predict::read(body.as_bytes(), signature).unwrap();
        let shape = |input: NamedTensor| (input.name, input.tensor.shape().to_vec());
        (inputs.into_iter().map(shape).collect(), form)
    }

    #[track_caller]
    fn check(body: &str, signature: &Signature, expected: &[(&str, &[usize])], form: Form) {
        let expected: Vec<(String, Vec<usize>)> =
            expected.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        assert_eq!(shapes(body, signature), (expected, form), "{body}");
    }

    #[track_caller]
    fn refused(body: &str, told: &str) {
        let error = Predict::read(body.as_bytes(), &pair()).unwrap_err().to_string();
        assert!(error.contains(told), "no {told:?} in {error:?}");
    }

    #[test]
    fn rows_and_columns_are_read() {
        let one = signature(&[("x", DataType::Int32)]);
        check(r#"{"instances": [1, 2, 3]}"#, &one, &[("x", &[3])], Form::Rows(3));
        check(r#"{"instances": [[1, 2]]}"#, &one, &[("x", &[1, 2])], Form::Rows(1));
        check(r#"{"instances": [{"x": [1]}]}"#, &one, &[("x", &[1, 1])], Form::Rows(1));
        check(r#"{"inputs": [[1, 2]]}"#, &one, &[("x", &[1, 2])], Form::Columns);
        check(r#"{"inputs": 1, "signature_name": "serving_default"}"#, &one, &[("x", &[])], {
            Form::Columns
        });
        let rows = r#"{"more": {}, "instances": [{"a": 1, "b": "x"}, {"b": {"b64": ""}, "a": 2}]}"#;
        check(rows, &pair(), &[("a", &[2]), ("b", &[2])], Form::Rows(2));
        let columns = r#"{"inputs": {"b": ["x"], "a": [[1, 2], [3, 4]]}}"#;
        check(columns, &pair(), &[("a", &[2, 2]), ("b", &[1])], Form::Columns);
        let text = signature(&[("t", DataType::Bytes)]);
        check(r#"{"instances": [{"b64": "AA=="}]}"#, &text, &[("t", &[1])], Form::Rows(1));
        check(r#"{"inputs": {"b64": "AA=="}}"#, &text, &[("t", &[])], Form::Columns);
    }

    #[test]
    fn mistakes_are_named() {
        refused("{}", "neither 'instances' nor 'inputs'");
        refused(r#"{"instances": []}"#, "'instances' has none");
        refused(r#"{"instances": 1}"#, "'instances': expected an array");
        refused(r#"{"instances": [1]}"#, "by the names of the inputs, the model takes 'a', 'b'");
        refused(r#"{"instances": [{"q": 1}]}"#, "unexpected input 'q'");
        refused(r#"{"instances": [{"a": 1}, {"b": "x"}]}"#, "input 'a' is in some");
        refused(r#"{"instances": [{"a": 1}, {"a": 1, "b": "x"}]}"#, "input 'b' is in some");
        refused(r#"{"instances": [{"a": 1, "a": 2}]}"#, "input 'a' is given more than once");
        refused(r#"{"inputs": {"a": [1], "a": [1]}}"#, "input 'a' is given more than once");
        refused(r#"{"instances": [{"a": [1]}, {"a": [1, 2]}]}"#, "input 'a': its data is no rect");
        refused(r#"{"instances": [{"a": 1}, {"a": 0.5}]}"#, "input 'a': element 1");
        refused(r#"{"inputs": {"a": 1}, "instances": [{"a": 1}]}"#, "either 'instances' or");
        refused(r#"{"signature_name": "other", "inputs": {"a": 1}}"#, "no signature 'other'");
        refused(r#"{"instances": [{"a": 1}"#, "not valid JSON");
    }
}
