//! Triton's trace extension: which requests are traced, and the line of the log that tells where the time
//! of one went.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;
use tracing::field::display;
use tracing::info;

use super::refusal::{Refusal, of_infer};
use crate::inference::InferError;
use crate::model::{
    Answer, LookupError, ModelLifecycleManager, ModelName, TraceChange, TraceLevel, TraceSettings,
    Traces, Update, VersionId,
};
use crate::trail::Ids;

/// What traces are logged under.
const TARGET: &str = "onward::trace";

/// A setting's name, and its values as texts.
pub(crate) type Named = (&'static str, Vec<String>);

/// How requests are traced: those of one model, or of those of which nothing else was said.
///
/// # Errors
/// Where nobody knows the model.
pub(crate) fn settings(
    (models, traces): (&ModelLifecycleManager, &Traces),
    model: Option<&ModelName>,
) -> Result<[Named; 6], Refusal> {
    model.map_or(Ok(()), |model| is_known(models, model))?;
    Ok(named(traces.settings(model)))
}

/// Changes that; a setting without values is cleared. How they are traced then.
///
/// # Errors
/// What makes no sense, or is not done; then nothing is changed.
pub(crate) fn change(
    serving: (&ModelLifecycleManager, &Traces),
    model: Option<&ModelName>,
    given: impl IntoIterator<Item = (String, Vec<String>)>,
) -> Result<[Named; 6], Refusal> {
    let (models, traces) = serving;
    model.map_or(Ok(()), |model| is_known(models, model))?;
    traces.change(model, read(given)?);
    settings(serving, model)
}

fn is_known(models: &ModelLifecycleManager, model: &ModelName) -> Result<(), Refusal> {
    match models.report(model.as_str()) {
        Some(_) => Ok(()),
        None => Err(LookupError::UnknownModel(model.to_string()).into()),
    }
}

fn named(settings: TraceSettings) -> [Named; 6] {
    let TraceSettings { level, rate, left } = settings;
    let level = match level {
        TraceLevel::Off => "OFF",
        TraceLevel::Timestamps => "TIMESTAMPS",
    };
    let count = left.map_or_else(|| "-1".to_owned(), |left| left.to_string());
    [
        ("trace_level", vec![level.to_owned()]),
        ("trace_rate", vec![rate.to_string()]),
        ("trace_count", vec![count]),
        ("log_frequency", vec!["0".to_owned()]),
        ("trace_file", vec![String::new()]),
        ("trace_mode", vec!["triton".to_owned()]),
    ]
}

fn read(given: impl IntoIterator<Item = (String, Vec<String>)>) -> Result<TraceChange, Refusal> {
    let mut change = TraceChange::default();
    for (name, values) in given {
        match name.as_str() {
            "trace_level" => change.level = level(&values)?,
            "trace_rate" => change.rate = one(&name, &values, "a number, 1 or more", rate)?,
            "trace_count" => change.count = count(&name, &values)?,
            "log_frequency" => fixed(&name, &values, ("0", "each trace is a line of the log"))?,
            "trace_file" => fixed(&name, &values, ("", "traces are lines of the log"))?,
            "trace_mode" => fixed(&name, &values, ("triton", "traces are lines of the log"))?,
            _ => return Err(Refusal::invalid(format!("there is no setting '{name}' of traces"))),
        }
    }
    Ok(change)
}

fn level(values: &[String]) -> Result<Update<TraceLevel>, Refusal> {
    let mut update = Update::Clear;
    for value in values {
        update = match value.as_str() {
            "OFF" if values.len() == 1 => Update::Set(TraceLevel::Off),
            "TIMESTAMPS" => Update::Set(TraceLevel::Timestamps),
            "TENSORS" => {
                let text = "'trace_level' TENSORS is not supported: tensors are not logged";
                return Err(Refusal::unsupported(text));
            }
            _ => return Err(wrong("trace_level", "OFF alone, or TIMESTAMPS", values)),
        };
    }
    Ok(update)
}

fn rate(text: &str) -> Option<NonZeroU32> {
    text.parse().ok()
}

/// -1 is no bound.
fn count(name: &str, values: &[String]) -> Result<Update<Option<u64>>, Refusal> {
    one(name, values, "-1, or a number", |text| match text {
        "-1" => Some(None),
        number => number.parse().ok().map(Some),
    })
}

/// A setting of one value.
fn one<T>(
    name: &str,
    values: &[String],
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Update<T>, Refusal> {
    match values {
        [] => Ok(Update::Clear),
        [value] => read(value).map(Update::Set).ok_or_else(|| wrong(name, expected, values)),
        _ => Err(wrong(name, expected, values)),
    }
}

/// A setting that has one value only.
fn fixed(name: &str, values: &[String], (only, why): (&str, &str)) -> Result<(), Refusal> {
    match values {
        [] => Ok(()),
        [value] if value == only => Ok(()),
        [_] => Err(Refusal::unsupported(format!("'{name}' is always '{only}': {why}"))),
        _ => Err(wrong(name, "one text", values)),
    }
}

fn wrong(name: &str, expected: &str, values: &[String]) -> Refusal {
    Refusal::invalid(format!("'{name}' is {expected}, got {values:?}"))
}

/// A request that is traced.
#[derive(Debug)]
pub(crate) struct Trace {
    /// The how manieth it is.
    pub(crate) number: u64,
    /// The request's id.
    pub(crate) id: Option<Bytes>,
    /// By what it is found in its trace, where that is one of several programs.
    pub(crate) ids: Ids,
    /// When the request came.
    pub(crate) received: Instant,
}

impl Trace {
    /// Writes the line that tells where its time went, once the model has answered. Moments are
    /// nanoseconds since 1970.
    pub(crate) fn write(self, version: &VersionId, answer: Result<&Answer, &InferError>) {
        let Self { number, id, ids, received } = self;
        let (now, wall) = (Instant::now(), SystemTime::now());
        let at = |moment: Instant| nanoseconds(wall, now.saturating_duration_since(moment));
        let request_id = String::from_utf8_lossy(id.as_deref().unwrap_or_default());
        let (request_id, trace_id, span_id) = (&*request_id, ids.trace(), ids.span());
        let (request_start_ns, request_end_ns) = (at(received), at(now));
        let total_us = microseconds(now.saturating_duration_since(received));
        let (model, version): (&dyn Display, &dyn Display) = (&version.model, &version.version);
        match answer {
            Ok(answer) => {
                let timings = answer.timings;
                let queued = timings.admitted.unwrap_or(received);
                let begun = queued + timings.queue;
                info!(
                    target: TARGET, trace = number, request_id, trace_id, span_id, %model, %version,
                    outcome = "success",
                    request_start_ns, queue_start_ns = at(queued), compute_start_ns = at(begun),
                    compute_end_ns = at(begun + timings.compute), request_end_ns,
                    queue_us = microseconds(timings.queue),
                    compute_us = microseconds(timings.compute), total_us, "request traced"
                );
            }
            Err(error) => {
                let code = of_infer(error);
                let cause = (!code.quotes_body()).then(|| display(error));
                info!(
                    target: TARGET, trace = number, request_id, trace_id, span_id, %model, %version,
                    outcome = "failure", code = code.name(),
                    cause, request_start_ns, request_end_ns, total_us, "request traced"
                );
            }
        }
    }
}

fn nanoseconds(wall: SystemTime, ago: Duration) -> u64 {
    let moment = wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(name: &str, values: &[&str]) -> Result<TraceChange, Refusal> {
        read([(name.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())])
    }

    #[test]
    fn settings_are_texts() {
        let change = read_one("trace_level", &["TIMESTAMPS"]).unwrap();
        assert_eq!(change.level, Update::Set(TraceLevel::Timestamps));
        assert_eq!(read_one("trace_level", &[]).unwrap().level, Update::Clear);
        assert_eq!(read_one("trace_count", &["-1"]).unwrap().count, Update::Set(None));
        assert_eq!(read_one("trace_count", &["7"]).unwrap().count, Update::Set(Some(7)));
        assert_eq!(read_one("trace_file", &[""]).unwrap(), TraceChange::default());
    }

    #[test]
    fn what_is_not_done_is_told_from_what_makes_no_sense() {
        for (name, values) in [
            ("trace_level", &["TENSORS"][..]),
            ("trace_file", &["/tmp/trace.json"]),
            ("trace_mode", &["opentelemetry"]),
            ("log_frequency", &["50"]),
        ] {
            assert!(matches!(read_one(name, values), Err(Refusal::Unsupported(_))), "{name}");
        }
        for (name, values) in [
            ("trace_level", &["OFF", "TIMESTAMPS"][..]),
            ("trace_level", &["MIN"]),
            ("trace_rate", &["0"]),
            ("trace_rate", &["1", "2"]),
            ("trace_count", &["-2"]),
            ("colour", &["blue"]),
        ] {
            assert!(matches!(read_one(name, values), Err(Refusal::Invalid(_))), "{name}");
        }
    }
}
