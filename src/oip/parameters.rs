//! The parameters of a request, and what they ask for.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use super::refusal::Refusal;

/// A parameter's value, whatever has carried it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Parameter {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    /// Something that no parameter of the protocol is, as it was written.
    Other(String),
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Double(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Parameters by name: of a request, of an input, or of an output.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Parameters(pub(crate) BTreeMap<String, Parameter>);

/// The parameter by which a client wants to be told which answer to a request is the last. As there is one
/// answer to each, it changes nothing; Triton's clients in C++ always send it.
pub(crate) const FINAL_RESPONSE_WANTED: &str = "triton_enable_empty_final_response";

/// The parameter of an answer that tells whether it is the last.
pub(crate) const FINAL_RESPONSE: &str = "triton_final_response";

/// What the parameters of a request ask for, whatever model it is for. Others are the caller's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RequestOptions {
    /// How long the caller is ready to wait.
    pub(crate) timeout: Option<Duration>,
    /// How much sooner its turn comes than that of others.
    pub(crate) priority: Option<NonZeroU32>,
    /// What the caller wants to be recognised by.
    pub(crate) routing_key: Option<String>,
}

impl RequestOptions {
    /// When a request that came then has to be answered, which has `most` from then on, or what it asks for
    /// if that is less.
    pub(crate) fn deadline(&self, (received, most): (Instant, Duration)) -> Instant {
        received + self.timeout.map_or(most, |timeout| timeout.min(most))
    }
}

impl Parameters {
    /// # Errors
    /// Where it is there and is something else.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Parameter::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong(name, "true or false", other)),
        }
    }

    /// # Errors
    /// Where it is there and is something else.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Parameter::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "a string", other)),
        }
    }

    /// A whole number from zero up; `what` it counts.
    ///
    /// # Errors
    /// Where it is there and is something else.
    pub(crate) fn count(&self, name: &str, what: &str) -> Result<Option<u64>, Refusal> {
        let Some(given) = self.0.get(name) else { return Ok(None) };
        let count = match given {
            Parameter::Uint(count) => Some(*count),
            Parameter::Int(count) => u64::try_from(*count).ok(),
            // Some clients send every parameter as a string.
            Parameter::Text(text) => text.parse().ok(),
            _ => None,
        };
        count.map(Some).ok_or_else(|| wrong(name, what, given))
    }

    /// What the parameters of a request ask for.
    ///
    /// # Errors
    /// What makes no sense, is reserved, or is not done.
    pub(crate) fn of_request(&self) -> Result<RequestOptions, Refusal> {
        if let Some(name) = self.0.keys().find(|name| is_reserved(name)) {
            let text =
                format!("parameter '{name}' is reserved: names that begin with 'triton_' are");
            return Err(Refusal::invalid(text));
        }
        if let Some(name) = self.0.keys().find(|name| is_of_sequences(name)) {
            let text = format!("parameter '{name}': models with state are not supported");
            return Err(Refusal::unsupported(text));
        }
        let priority = self.count("priority", "a number, 0 or more")?;
        // Zero is that of the model's settings, as in Triton, whose numbers are as large as these.
        let priority =
            priority.and_then(|number| NonZeroU32::new(u32::try_from(number).unwrap_or(u32::MAX)));
        let micros = self.count("timeout", "a number of microseconds")?;
        // Zero is none, as in Triton.
        let timeout = micros.filter(|micros| *micros > 0).map(Duration::from_micros);
        let routing_key = self.text("routing_key")?.map(str::to_owned);
        Ok(RequestOptions { timeout, priority, routing_key })
    }

    /// # Errors
    /// [`Refusal::Unsupported`] where a tensor is said to be in shared memory.
    pub(crate) fn is_not_shared(&self, tensor: impl FnOnce() -> String) -> Result<(), Refusal> {
        match self.0.keys().find(|name| name.starts_with("shared_memory_")) {
            Some(name) => {
                let tensor = tensor();
                let text = format!("{tensor}: '{name}' is not supported, send tensors as they are");
                Err(Refusal::unsupported(text))
            }
            None => Ok(()),
        }
    }
}

/// Whether a name is one of those that the protocol keeps for itself, and none of those that it has given
/// a meaning.
fn is_reserved(name: &str) -> bool {
    name.starts_with("triton_") && name != FINAL_RESPONSE_WANTED
}

fn is_of_sequences(name: &str) -> bool {
    ["sequence_id", "sequence_start", "sequence_end"].contains(&name)
}

fn wrong(name: &str, expected: &str, got: &Parameter) -> Refusal {
    Refusal::invalid(format!("parameter '{name}' is {expected}, got {got}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(given: &[(&str, Parameter)]) -> Parameters {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Parameters(given.collect())
    }

    #[track_caller]
    fn refused(given: &[(&str, Parameter)], told: &str) {
        assert_eq!(parameters(given).of_request().unwrap_err().to_string(), told);
    }

    #[test]
    fn requests_say_how_they_are_to_be_served() {
        let text = |text: &str| Parameter::Text(text.to_owned());
        let given = [
            ("timeout", Parameter::Int(1_500)),
            ("routing_key", text("me")),
            ("priority", Parameter::Uint(1)),
            ("colour", text("blue")),
            (FINAL_RESPONSE_WANTED, Parameter::Bool(false)),
        ];
        let options = parameters(&given).of_request().unwrap();
        let (timeout, key) = (Some(Duration::from_micros(1_500)), Some("me".to_owned()));
        assert_eq!(
            options,
            RequestOptions { timeout, priority: NonZeroU32::new(1), routing_key: key }
        );
        let none = parameters(&[("timeout", Parameter::Uint(0))]).of_request().unwrap();
        assert_eq!(none.timeout, None);
        refused(
            &[("timeout", Parameter::Int(-1))],
            "parameter 'timeout' is a number of microseconds, got -1",
        );
        refused(
            &[("routing_key", Parameter::Int(1))],
            "parameter 'routing_key' is a string, got 1",
        );
        refused(
            &[("triton_x", Parameter::Int(1))],
            "parameter 'triton_x' is reserved: names that begin with 'triton_' are",
        );
        refused(
            &[("sequence_id", Parameter::Int(1))],
            "parameter 'sequence_id': models with state are not supported",
        );
    }
}
