//! What Triton's clients read and change of the server: its log and its traces.

use std::collections::BTreeMap;

use super::proto::log_settings_request as asked;
use super::proto::log_settings_response as told;
use super::proto::trace_setting_response::SettingValue as TraceValue;
use super::proto::{
    LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse,
};
use crate::lifecycle::{LogControl, LogSettings};
use crate::model::{ModelLifecycleManager, ModelName, Traces};
use crate::oip::logging::{self, FORMAT};
use crate::oip::trace;
use crate::oip::{Parameter, Refusal};

/// Changes what of the log is written, and tells what is.
///
/// # Errors
/// [`Refusal`]; then nothing is changed.
pub(super) fn log(
    control: &dyn LogControl,
    request: &LogSettingsRequest,
) -> Result<LogSettingsResponse, Refusal> {
    let given = request.settings.iter().filter_map(|(name, value)| {
        let value = match value.parameter_choice.as_ref()? {
            asked::setting_value::ParameterChoice::BoolParam(value) => Parameter::Bool(*value),
            asked::setting_value::ParameterChoice::Uint32Param(value) => {
                Parameter::Uint(u64::from(*value))
            }
            asked::setting_value::ParameterChoice::StringParam(text) => {
                Parameter::Text(text.clone())
            }
        };
        Some((name.as_str(), value))
    });
    Ok(response(logging::change(control, given)?))
}

fn response(settings: LogSettings) -> LogSettingsResponse {
    use told::setting_value::ParameterChoice;

    let LogSettings { info, warning, error, verbose } = settings;
    let values = [
        ("log_file", ParameterChoice::StringParam(String::new())),
        ("log_info", ParameterChoice::BoolParam(info)),
        ("log_warning", ParameterChoice::BoolParam(warning)),
        ("log_error", ParameterChoice::BoolParam(error)),
        ("log_verbose_level", ParameterChoice::Uint32Param(verbose)),
        ("log_format", ParameterChoice::StringParam(FORMAT.to_owned())),
    ];
    let settings = values.map(|(name, choice)| {
        (name.to_owned(), told::SettingValue { parameter_choice: Some(choice) })
    });
    LogSettingsResponse { settings: BTreeMap::from(settings) }
}

/// Changes which requests are traced, of one model or of all, and tells which are.
///
/// # Errors
/// [`Refusal`]; then nothing is changed.
pub(super) fn trace(
    serving: (&ModelLifecycleManager, &Traces),
    request: TraceSettingRequest,
) -> Result<TraceSettingResponse, Refusal> {
    let TraceSettingRequest { settings, model_name } = request;
    let named = (!model_name.is_empty()).then_some(model_name.as_str());
    let model = named.map(ModelName::new).transpose()?;
    let given = settings.into_iter().map(|(name, setting)| (name, setting.value));
    let settings = trace::change(serving, model.as_ref(), given)?;
    let settings = settings.map(|(name, value)| (name.to_owned(), TraceValue { value }));
    Ok(TraceSettingResponse { settings: BTreeMap::from(settings) })
}
