//! What an engine may run a model's nodes on.

use std::fmt;

/// An execution provider: a library within the engine for some kind of processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExecutionProvider {
    /// The processor that the program runs on.
    Cpu,
    /// Graphics processors of NVIDIA.
    Cuda,
    /// The same, by graphs that are compiled for them.
    TensorRt,
    /// Processors of Intel.
    OpenVino,
    /// Processors of Apple.
    CoreMl,
    /// Graphics processors, by DirectX.
    DirectMl,
    /// The processor that the program runs on, by XNNPACK.
    Xnnpack,
}

impl ExecutionProvider {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Cpu,
        Self::Cuda,
        Self::TensorRt,
        Self::OpenVino,
        Self::CoreMl,
        Self::DirectMl,
        Self::Xnnpack,
    ];

    /// Its name, which is that of the cargo feature it needs too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::OpenVino => "openvino",
            Self::CoreMl => "coreml",
            Self::DirectMl => "directml",
            Self::Xnnpack => "xnnpack",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }

    /// Whether this build has it; whether the engine's library has it too, a load tells.
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Cuda => cfg!(feature = "cuda"),
            Self::TensorRt => cfg!(feature = "tensorrt"),
            Self::OpenVino => cfg!(feature = "openvino"),
            Self::CoreMl => cfg!(feature = "coreml"),
            Self::DirectMl => cfg!(feature = "directml"),
            Self::Xnnpack => cfg!(feature = "xnnpack"),
        }
    }
}

impl fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for provider in ExecutionProvider::ALL {
            assert_eq!(ExecutionProvider::from_name(provider.name()), Some(provider));
        }
        assert_eq!(ExecutionProvider::from_name("gpu"), None);
        assert!(ExecutionProvider::Cpu.is_built_in());
    }
}
