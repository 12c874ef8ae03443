//! Samples as `NumPy` writes them: an archive with an array `input:<name>` or `output:<name>` for each
//! tensor.
//!
//! The format of an array is that of
//! [NEP 1](https://numpy.org/neps/nep-0001-npy-format.html): a magic, a version, and a header that is
//! a Python dictionary of three known keys.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use bytes::Bytes;
use zip::ZipArchive;

use crate::inference::{DataType, NamedTensor, Tensor, Tolerance};
use crate::model::GoldenSample;

/// The most bytes that the arrays of an archive may have together, however small they are packed.
const LARGEST: u64 = 256 << 20;

/// Reads an archive.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(path: &Path, name: String) -> Result<GoldenSample, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    read_within(BufReader::new(file), name, LARGEST)
}

/// Reads an archive whose arrays have `most` bytes together.
pub(super) fn read_within(
    file: impl Read + Seek,
    name: String,
    most: u64,
) -> Result<GoldenSample, String> {
    let mut archive = ZipArchive::new(file).map_err(|error| error.to_string())?;
    let (mut inputs, mut expected, mut left) = (Vec::new(), Vec::new(), most);
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|error| error.to_string())?;
        let file = entry.name().map_err(|error| error.to_string())?;
        let array = file.strip_suffix(".npy").unwrap_or(&file).to_owned();
        let (list, tensor) = match array.split_once(':') {
            Some(("input", tensor)) => (&mut inputs, tensor.to_owned()),
            Some(("output", tensor)) => (&mut expected, tensor.to_owned()),
            _ => {
                return Err(format!("array '{array}': expected 'input:<name>' or 'output:<name>'"));
            }
        };
        let mut bytes = Vec::new();
        let read = entry.take(left + 1).read_to_end(&mut bytes);
        let read = read.map_err(|error| format!("array '{array}': {error}"))? as u64;
        left = left.checked_sub(read).ok_or_else(|| {
            format!("array '{array}': the arrays have more than {most} bytes together")
        })?;
        let value = self::array(&bytes).map_err(|problem| format!("array '{array}': {problem}"))?;
        list.push(NamedTensor { name: tensor, tensor: value });
    }
    Ok(GoldenSample { name, inputs, expected, tolerance: Tolerance::default() })
}

/// Reads one array.
pub(super) fn array(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("it is no NumPy array")?;
    let length = |from: usize, to: usize| {
        let bytes = rest.get(from..to).ok_or("it is cut off")?;
        let number = bytes.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        Ok::<_, String>((to, number))
    };
    let (begins, length) = match rest.first() {
        Some(1) => length(2, 4)?,
        Some(2 | 3) => length(2, 6)?,
        _ => return Err("its format is of an unknown version".to_owned()),
    };
    let ends = begins.saturating_add(length);
    let header = rest.get(begins..ends).ok_or("it is cut off")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    if value(header, "fortran_order")? != "False" {
        return Err("it is in Fortran's order, write it with np.ascontiguousarray".to_owned());
    }
    let datatype = datatype(value(header, "descr")?)?;
    Tensor::from_bytes(datatype, shape(header)?, Bytes::copy_from_slice(&rest[ends..]))
        .map_err(|error| error.to_string())
}

/// What stands behind a key, up to the next comma.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let missing = || format!("its header has no '{key}'");
    let (_, behind) = header.split_once(&format!("'{key}':")).ok_or_else(missing)?;
    Ok(behind.split([',', '}']).next().unwrap_or_default().trim())
}

fn shape(header: &str) -> Result<Vec<usize>, String> {
    let behind = header.split_once("'shape':").map(|(_, behind)| behind.trim_start());
    let inside = behind.and_then(|behind| behind.strip_prefix('(')?.split_once(')'));
    let (inside, _) = inside.ok_or("its header has no 'shape'")?;
    let sizes = inside.split(',').map(str::trim).filter(|size| !size.is_empty());
    let wrong = |size: &str| format!("its shape has '{size}'");
    sizes.map(|size| size.parse().map_err(|_| wrong(size))).collect()
}

/// `NumPy`'s name for a datatype, in quotes.
fn datatype(descr: &str) -> Result<DataType, String> {
    Ok(match descr.trim_matches(['\'', '"']) {
        "|b1" => DataType::Bool,
        "|u1" => DataType::Uint8,
        "<u2" => DataType::Uint16,
        "<u4" => DataType::Uint32,
        "<u8" => DataType::Uint64,
        "|i1" => DataType::Int8,
        "<i2" => DataType::Int16,
        "<i4" => DataType::Int32,
        "<i8" => DataType::Int64,
        "<f2" => DataType::Fp16,
        "<f4" => DataType::Fp32,
        "<f8" => DataType::Fp64,
        other => {
            return Err(format!(
                "its datatype is {other}; numbers and booleans in little-endian order can be read, \
                 texts can be written as JSON"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// An array as `NumPy` writes it.
    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        let header = format!("{header}\n");
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn an_archive_has_a_tensor_for_each_array_and_no_bomb() {
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000,), }";
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = ZipWriter::new(file.reopen().unwrap());
        for array in ["input:x.npy", "output:y.npy"] {
            archive.start_file(array, SimpleFileOptions::default()).unwrap();
            archive.write_all(&npy(header, &[0; 1_000])).unwrap();
        }
        archive.finish().unwrap();
        let read = |most| read_within(file.reopen().unwrap(), "s.npz".to_owned(), most);
        let sample = read(4_000).unwrap();
        assert_eq!((sample.inputs[0].name.as_str(), sample.expected.len()), ("x", 1));
        let error = read(2_000).unwrap_err();
        assert!(error.contains("'output:y': the arrays have more than 2000 bytes"), "{error}");
    }

    #[test]
    fn an_array_is_a_tensor() {
        let header = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 1), }";
        let tensor = array(&npy(header, &[1, 0, 255, 255])).unwrap();
        assert_eq!(
            (tensor.shape(), tensor.as_slice::<i16>()),
            (&[2, 1][..], Some(&[1_i16, -1][..]))
        );
        let scalar = "{'descr': '<f4', 'fortran_order': False, 'shape': (), }";
        assert_eq!(array(&npy(scalar, &1_f32.to_le_bytes())).unwrap().shape(), [0_usize; 0]);
    }

    #[test]
    fn what_is_no_array_of_numbers_is_refused() {
        let header = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")
        };
        for (bytes, told) in [
            (b"PK".to_vec(), "no NumPy array"),
            (b"\x93NUMPY".to_vec(), "unknown version"),
            (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "cut off"),
            (npy("{}", &[]), "fortran_order"),
            (npy(&header("<f4", "True", "(1,)"), &[0; 4]), "Fortran"),
            (npy(&header("|O", "False", "(1,)"), &[]), "|O"),
            (npy(&header(">f4", "False", "(1,)"), &[0; 4]), ">f4"),
            (npy(&header("<f4", "False", "(x,)"), &[0; 4]), "'x'"),
            (npy(&header("<f4", "False", "(2,)"), &[0; 4]), "8"),
        ] {
            let error = array(&bytes).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
