//! A shape as a client gives it.

use crate::inference::Shape;

/// The dimensions.
///
/// # Errors
/// A dimension that is no size, with what was expected.
pub(crate) fn read<T>(given: &[T]) -> Result<Shape, String>
where
    T: Copy + TryInto<usize> + Into<i128>,
{
    let size = |dim: &T| (*dim).try_into().map_err(|_| refused(*dim, given));
    given.iter().map(size).collect()
}

fn refused<T: Copy + Into<i128>>(dim: T, given: &[T]) -> String {
    let given: Vec<String> = given.iter().map(|dim| (*dim).into().to_string()).collect();
    let (dim, given) = (dim.into(), given.join(","));
    format!("a dimension is a whole number, 0 or more, got {dim} in the shape [{given}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dimension_is_not_negative() {
        assert_eq!(read(&[0_i64, i64::MAX]).unwrap()[..], [0, usize::MAX / 2]);
        let told = "a dimension is a whole number, 0 or more, got -1 in the shape [2,-1]";
        assert_eq!(read(&[2_i64, -1]).unwrap_err(), told);
    }
}
