//! Tensors that are written without their shape: it follows from how they are nested. As elsewhere, each
//! number goes from its digits straight into a buffer of its own type.

use bytes::Bytes;
use half::{bf16, f16};

use super::cursor::Cursor;
use super::data::{DataError, bytes, row};
use super::element::JsonElement;
use crate::inference::{DataType, Tensor, TensorError};

/// The most dimensions that a tensor may have.
const DEEPEST: usize = 32;

/// Values of one datatype that are nested alike, one after the other.
pub(crate) trait Column: Send {
    /// Reads the value that comes next.
    ///
    /// # Errors
    /// [`DataError`].
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DataError>;

    /// How many were read.
    fn count(&self) -> usize;

    /// All of them as one tensor, of which they are the rows.
    ///
    /// # Errors
    /// Where there are more than a tensor may have.
    fn rows(self: Box<Self>) -> Result<Tensor, DataError>;

    /// The only one of them as a tensor.
    ///
    /// # Errors
    /// As [`Column::rows`].
    fn one(self: Box<Self>) -> Result<Tensor, DataError>;
}

/// A column of this datatype, without a value.
pub(crate) fn column(datatype: DataType) -> Box<dyn Column> {
    match datatype {
        DataType::Bool => fixed::<bool>(),
        DataType::Uint8 => fixed::<u8>(),
        DataType::Uint16 => fixed::<u16>(),
        DataType::Uint32 => fixed::<u32>(),
        DataType::Uint64 => fixed::<u64>(),
        DataType::Int8 => fixed::<i8>(),
        DataType::Int16 => fixed::<i16>(),
        DataType::Int32 => fixed::<i32>(),
        DataType::Int64 => fixed::<i64>(),
        DataType::Fp16 => fixed::<f16>(),
        DataType::Bf16 => fixed::<bf16>(),
        DataType::Fp32 => fixed::<f32>(),
        DataType::Fp64 => fixed::<f64>(),
        DataType::Bytes => {
            let how = How { datatype, element: bytes, tensor: Tensor::from_strings };
            Box::new(Alike::<Bytes>::new(how))
        }
    }
}

fn fixed<T: JsonElement + Send + 'static>() -> Box<dyn Column> {
    let how = How { datatype: T::DATATYPE, element: T::read, tensor: Tensor::from_vec };
    Box::new(Alike::new(how))
}

/// How elements are read, and made a tensor.
struct How<T> {
    datatype: DataType,
    element: fn(&[u8]) -> Option<(T, usize)>,
    tensor: fn(Vec<usize>, Vec<T>) -> Result<Tensor, TensorError>,
}

struct Alike<T> {
    how: How<T>,
    values: Vec<T>,
    count: usize,
    nesting: Nesting,
}

impl<T> Alike<T> {
    fn new(how: How<T>) -> Self {
        Self { how, values: Vec::new(), count: 0, nesting: Nesting::default() }
    }
}

impl<T: Send> Column for Alike<T> {
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DataError> {
        let Self { how, values, nesting, .. } = self;
        loop {
            // A value is to come.
            if cursor.take(b'[') {
                nesting.open(values.len())?;
                if cursor.peek() != Some(b']') {
                    continue;
                }
            } else {
                let before = values.len();
                nesting.begin_elements(before)?;
                let is_alone = nesting.open.is_empty();
                row((how.datatype, is_alone), cursor, values, &how.element)?;
                nesting.end_elements(values.len() - before);
            }
            // A value has come.
            while !nesting.open.is_empty() && cursor.take(b']') {
                nesting.close(values.len())?;
            }
            if nesting.open.is_empty() {
                self.count += 1;
                return Ok(());
            }
            if !cursor.take(b',') {
                return Err(cursor.syntax("expected ',' or ']'").into());
            }
        }
    }

    fn count(&self) -> usize {
        self.count
    }

    fn rows(self: Box<Self>) -> Result<Tensor, DataError> {
        let shape = std::iter::once(self.count).chain(self.nesting.shape()).collect();
        Ok((self.how.tensor)(shape, self.values)?)
    }

    fn one(self: Box<Self>) -> Result<Tensor, DataError> {
        Ok((self.how.tensor)(self.nesting.shape().collect(), self.values)?)
    }
}

/// What is known of the shape, and where in it the next value stands.
#[derive(Default)]
struct Nesting {
    /// The entries of each dimension, where one of its arrays has been closed.
    dims: Vec<Option<usize>>,
    /// How deep the elements are.
    rank: Option<usize>,
    /// For each open bracket, how many entries it has so far.
    open: Vec<usize>,
}

impl Nesting {
    fn open(&mut self, index: usize) -> Result<(), DataError> {
        if self.open.len() >= DEEPEST {
            return Err(DataError::Deepest { most: DEEPEST });
        }
        if self.rank.is_some_and(|rank| self.open.len() >= rank) {
            return Err(DataError::Unlike { index });
        }
        if let Some(entries) = self.open.last_mut() {
            *entries += 1;
        }
        self.open.push(0);
        if self.dims.len() < self.open.len() {
            self.dims.push(None);
        }
        Ok(())
    }

    fn close(&mut self, index: usize) -> Result<(), DataError> {
        let actual = self.open.pop().unwrap_or_default();
        let dimension = self.open.len();
        match self.dims[dimension] {
            Some(expected) if expected != actual => {
                Err(DataError::Uneven { dimension, expected, actual, index })
            }
            _ => {
                self.dims[dimension] = Some(actual);
                Ok(())
            }
        }
    }

    /// Elements come, the first of which has this index.
    fn begin_elements(&mut self, index: usize) -> Result<(), DataError> {
        let depth = self.open.len();
        if *self.rank.get_or_insert(depth) == depth && self.dims.len() == depth {
            return Ok(());
        }
        Err(DataError::Unlike { index })
    }

    /// So many have come.
    fn end_elements(&mut self, count: usize) {
        if let Some(entries) = self.open.last_mut() {
            *entries += count;
        }
    }

    fn shape(&self) -> impl Iterator<Item = usize> + '_ {
        self.dims.iter().map(|size| size.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape and elements of the rows.
    fn rows(texts: &[&str]) -> Result<(Vec<usize>, Vec<i32>), DataError> {
        let mut column = column(DataType::Int32);
        for text in texts {
            let mut cursor = Cursor::new(text.as_bytes());
            column.read(&mut cursor)?;
            cursor.end()?;
        }
        let tensor = column.rows()?;
        Ok((tensor.shape().to_vec(), tensor.as_slice::<i32>().unwrap().to_vec()))
    }

    #[track_caller]
    fn check(texts: &[&str], shape: &[usize], elements: &[i32]) {
        assert_eq!(rows(texts), Ok((shape.to_vec(), elements.to_vec())));
    }

    #[test]
    fn the_shape_follows_from_the_nesting() {
        check(&["1", "2"], &[2], &[1, 2]);
        check(&["[1, 2]", " [3,4] "], &[2, 2], &[1, 2, 3, 4]);
        check(&["[[1],[2],[3]]"], &[1, 3, 1], &[1, 2, 3]);
        check(&["[]", "[]"], &[2, 0], &[]);
        check(&["[[],[]]"], &[1, 2, 0], &[]);
        check(&[], &[0], &[]);
        let mut one = column(DataType::Int32);
        one.read(&mut Cursor::new(b"[[1,2]]")).unwrap();
        assert_eq!(one.one().unwrap().shape(), [1, 2]);
    }

    #[test]
    fn what_is_no_rectangle_is_told_with_its_place() {
        let uneven = |dimension, expected, actual, index| {
            Err(DataError::Uneven { dimension, expected, actual, index })
        };
        let unlike = |index| Err(DataError::Unlike { index });
        assert_eq!(rows(&["[1,2]", "[3]"]), uneven(0, 2, 1, 3));
        assert_eq!(rows(&["[[1,2],[3]]"]), uneven(1, 2, 1, 3));
        assert_eq!(rows(&["[[],[1]]"]), uneven(1, 0, 1, 1));
        assert_eq!(rows(&["1", "[2]"]), unlike(1));
        assert_eq!(rows(&["[1]", "2"]), unlike(1));
        assert_eq!(rows(&["[1,[2]]"]), unlike(1));
        assert_eq!(rows(&["[[1],2]"]), unlike(1));
        assert_eq!(rows(&["[[],1]"]), unlike(0));
        let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
        assert_eq!(rows(&[&deep]), Err(DataError::Deepest { most: 32 }));
        assert_eq!(rows(&[&"[".repeat(100_000)]), Err(DataError::Deepest { most: 32 }));
        assert!(matches!(rows(&["[1,2.5]"]), Err(DataError::Element { index: 1, .. })));
        assert!(matches!(rows(&["[1,2"]), Err(DataError::Json(_))));
        assert!(matches!(rows(&["{\"b64\":\"AA==\"}"]), Err(DataError::Element { index: 0, .. })));
    }

    #[test]
    fn bytes_are_texts_or_in_base_64() {
        let mut column = column(DataType::Bytes);
        for text in ["\"a\\n\"", "{\"b64\": \"/wA=\"}", " { \"b64\" : \"\" } "] {
            column.read(&mut Cursor::new(text.as_bytes())).unwrap();
        }
        assert_eq!(column.count(), 3);
        let tensor = column.rows().unwrap();
        assert_eq!(tensor.as_strings().unwrap(), [&b"a\n"[..], b"\xff\0", b""]);
        for text in ["{\"b64\": \"/w\"}", "{\"b64\": 1}", "{}", "{\"b64\":\"\",\"c\":1}", "1"] {
            let read = super::column(DataType::Bytes).read(&mut Cursor::new(text.as_bytes()));
            assert!(matches!(read, Err(DataError::Element { index: 0, .. })), "{text}");
        }
    }
}
