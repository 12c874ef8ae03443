//! The datatypes of tensors' elements.

use std::fmt;
use std::str::FromStr;

use bytemuck::{CheckedBitPattern, NoUninit};
use half::{bf16, f16};

/// The datatypes of the Open Inference Protocol, and `BF16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// One byte per element, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    Uint8,
    /// Unsigned 16-bit integer.
    Uint16,
    /// Unsigned 32-bit integer.
    Uint32,
    /// Unsigned 64-bit integer.
    Uint64,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 16-bit integer.
    Int16,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// Brain floating point: the upper half of an IEEE 754 single.
    Bf16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// A byte string per element, of any length.
    Bytes,
}

impl DataType {
    /// Every datatype, in the protocol's order.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The protocol's name, such as `FP32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The datatype of a protocol name; `None` for an unknown one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// Every protocol name.
    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// What its elements can be, in words.
    pub(crate) const fn values(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Uint8 => "a whole number from 0 to 255",
            Self::Uint16 => "a whole number from 0 to 65535",
            Self::Uint32 => "a whole number from 0 to 4294967295",
            Self::Uint64 => "a whole number from 0 to 18446744073709551615",
            Self::Int8 => "a whole number from -128 to 127",
            Self::Int16 => "a whole number from -32768 to 32767",
            Self::Int32 => "a whole number from -2147483648 to 2147483647",
            Self::Int64 => "a whole number from -9223372036854775808 to 9223372036854775807",
            Self::Fp16 => "a number from -65504 to 65504",
            Self::Bf16 | Self::Fp32 => "a number from -3.4e38 to 3.4e38",
            Self::Fp64 => "a number from -1.8e308 to 1.8e308",
            Self::Bytes => "a text",
        }
    }

    /// Bytes per element; `None` for [`DataType::Bytes`], whose elements vary.
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

/// There is no datatype of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown datatype '{0}', expected one of {known}", known = DataType::names())]
pub struct UnknownDataType(pub String);

impl FromStr for DataType {
    type Err = UnknownDataType;

    fn from_str(name: &str) -> Result<Self, UnknownDataType> {
        Self::from_name(name).ok_or_else(|| UnknownDataType(name.to_owned()))
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that is the in-memory form of one fixed-size datatype.
pub trait Element: NoUninit + CheckedBitPattern + Send + Sync + 'static {
    /// The datatype that this type stores.
    const DATATYPE: DataType;
}

macro_rules! elements {
    ($($rust:ty => $datatype:ident),* $(,)?) => {
        $(impl Element for $rust {
            const DATATYPE: DataType = DataType::$datatype;
        })*
    };
}

elements! {
    bool => Bool, u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f16 => Fp16, bf16 => Bf16, f32 => Fp32, f64 => Fp64,
}

#[cfg(test)]
mod tests {
    use super::super::tensor::Tensor;
    use super::*;

    #[test]
    fn names_round_trip() {
        for datatype in DataType::ALL {
            assert_eq!(DataType::from_name(datatype.name()), Some(datatype));
            let zeros = Tensor::zeros(datatype, vec![2, 3]).unwrap();
            assert_eq!((zeros.datatype(), zeros.shape()), (datatype, &[2, 3][..]));
        }
        assert_eq!(DataType::from_name("FP8"), None);
        let unknown = "float32".parse::<DataType>().unwrap_err().to_string();
        assert!(unknown.starts_with("unknown datatype 'float32', expected one of BOOL, "));
    }
}
