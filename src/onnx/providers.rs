//! Execution providers: what runs a graph's nodes, each those that it can, in the order given.

use ort::ep::ExecutionProviderDispatch;
use ort::session::builder::SessionBuilder;

use super::told;
use crate::inference::BackendError;
use crate::inference::ExecutionProvider::{self, Cpu};

/// Whether the CPU's own provider runs all nodes. Only its sessions may be run by several threads at once.
pub(super) fn is_cpu_alone(providers: &[ExecutionProvider]) -> bool {
    providers.iter().all(|provider| *provider == Cpu)
}

/// Gives a session these providers; none are the CPU's. What no one runs is left to the CPU's only where
/// that is named too.
///
/// # Errors
/// Where one is not in this build, or not in the library, or what is asked for makes no sense.
pub(super) fn give(
    builder: SessionBuilder,
    providers: &[ExecutionProvider],
) -> Result<SessionBuilder, BackendError> {
    check(providers)?;
    let mut others = providers.iter().copied().filter(|provider| *provider != Cpu);
    let with_each = others.try_fold(builder, with)?;
    terms(with_each, providers).map_err(|error| BackendError::Rejected(error.to_string()))
}

fn with(
    builder: SessionBuilder,
    provider: ExecutionProvider,
) -> Result<SessionBuilder, BackendError> {
    let made = made(provider).ok_or_else(|| not_built_in(provider))?.error_on_failure();
    builder.with_execution_providers([made]).map_err(|error| unusable(provider, error.message()))
}

/// What a session has to be like for them.
fn terms(builder: SessionBuilder, providers: &[ExecutionProvider]) -> ort::Result<SessionBuilder> {
    let mut builder = builder;
    if providers.contains(&ExecutionProvider::DirectMl) {
        builder = builder.with_memory_pattern(false)?;
    }
    if !providers.is_empty() && !providers.contains(&Cpu) {
        builder = builder.with_disable_cpu_fallback()?;
    }
    Ok(builder)
}

/// # Errors
/// What makes no sense of what is asked for.
pub(super) fn check(providers: &[ExecutionProvider]) -> Result<(), BackendError> {
    let mut places = providers.iter().enumerate();
    if let Some((_, twice)) = places.find(|(at, provider)| providers[..*at].contains(provider)) {
        return wrong(&format!("'{twice}' is named twice"));
    }
    match providers.iter().position(|provider| *provider == Cpu) {
        Some(at) if at + 1 < providers.len() => wrong("'cpu' runs every node, so it comes last"),
        _ => Ok(()),
    }
}

fn wrong(what: &str) -> Result<(), BackendError> {
    Err(BackendError::Rejected(format!("execution_providers: {what}")))
}

/// One with its defaults; `None` where it is not in this build.
fn made(provider: ExecutionProvider) -> Option<ExecutionProviderDispatch> {
    match provider {
        #[cfg(feature = "cuda")]
        ExecutionProvider::Cuda => Some(ort::ep::CUDA::default().build()),
        #[cfg(feature = "tensorrt")]
        ExecutionProvider::TensorRt => Some(ort::ep::TensorRT::default().build()),
        #[cfg(feature = "openvino")]
        ExecutionProvider::OpenVino => Some(ort::ep::OpenVINO::default().build()),
        #[cfg(feature = "coreml")]
        ExecutionProvider::CoreMl => Some(ort::ep::CoreML::default().build()),
        #[cfg(feature = "directml")]
        ExecutionProvider::DirectMl => Some(ort::ep::DirectML::default().build()),
        #[cfg(feature = "xnnpack")]
        ExecutionProvider::Xnnpack => Some(ort::ep::XNNPACK::default().build()),
        _ => None,
    }
}

fn not_built_in(provider: ExecutionProvider) -> BackendError {
    let built_in = ExecutionProvider::ALL.into_iter().filter(|provider| provider.is_built_in());
    let built_in: Vec<&str> = built_in.map(ExecutionProvider::name).collect();
    BackendError::Rejected(format!(
        "the execution provider '{provider}' is not in this build of the server, which has {}; it takes \
         the cargo feature '{provider}', and an ONNX Runtime library with it",
        built_in.join(", ")
    ))
}

fn unusable(provider: ExecutionProvider, cause: &str) -> BackendError {
    let cause = told::cause(cause);
    BackendError::Rejected(format!("the execution provider '{provider}' cannot be used: {cause}"))
}

#[cfg(test)]
mod tests {
    use ort::session::Session;

    use super::super::tests::backend;
    use super::*;

    /// Why these cannot be had.
    fn refused(providers: &[ExecutionProvider]) -> String {
        let backend = backend();
        let builder = Session::builder(&backend.runtime().environment).unwrap();
        give(builder, providers).err().expect("they cannot be had").to_string()
    }

    #[test]
    fn the_cpu_is_always_there() {
        let backend = backend();
        for providers in [&[][..], &[Cpu]] {
            let builder = Session::builder(&backend.runtime().environment).unwrap();
            assert!(give(builder, providers).is_ok());
            assert!(is_cpu_alone(providers));
        }
        assert!(!is_cpu_alone(&[ExecutionProvider::Xnnpack, Cpu]));
    }

    #[test]
    fn what_is_not_there_is_told_and_not_passed_over() {
        for provider in ExecutionProvider::ALL.into_iter().filter(|provider| *provider != Cpu) {
            let expected = if provider.is_built_in() { "cannot be used" } else { "cargo feature" };
            for providers in [&[provider][..], &[provider, Cpu]] {
                let message = refused(providers);
                assert!(message.contains(expected), "{message}");
                assert!(message.contains(&format!("'{provider}'")), "{message}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(refused(&[Cpu, ExecutionProvider::Cuda]).contains("comes last"));
        assert!(refused(&[ExecutionProvider::Cuda, ExecutionProvider::Cuda]).contains("twice"));
    }
}
