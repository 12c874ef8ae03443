//! The desired state as text that tells when it was damaged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::callers::CallersForm;
use crate::hex::hex;
use crate::model::{
    AliasName, Choice, Desire, DesiredModel, DesiredState, Intent, ModelName, ShadowTarget,
    Version, Weights,
};

/// The only format there is so far.
const FORMAT: u64 = 1;

#[derive(Deserialize)]
struct File<'a> {
    format: u64,
    sha256: String,
    #[serde(borrow)]
    models: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct Model {
    /// `None` where nobody has said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    loaded: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    chosen: Option<Chosen>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    aliases: BTreeMap<String, u64>,
    /// Hundredths of a percent by version.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    weights: Vec<(u64, u32)>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    shadow: Option<(u64, u32)>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pinned: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pending: Option<Box<Model>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    callers: Option<CallersForm>,
}

#[derive(Serialize, Deserialize)]
struct Chosen {
    version: u64,
    newest: u64,
}

/// The whole file.
pub(super) fn write(state: &DesiredState) -> String {
    let models: BTreeMap<&str, Model> =
        state.models.iter().map(|(name, model)| (name.as_str(), Model::from(model))).collect();
    let models = serde_json::to_string(&models).expect("names are texts");
    format!("{{\"format\":{FORMAT},\"sha256\":\"{}\",\"models\":{models}}}\n", digest(&models))
}

/// The state in a file; what is wrong with it, in words, where it cannot be trusted.
pub(super) fn read(text: &[u8]) -> Result<DesiredState, String> {
    let file: File<'_> =
        serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
    if file.format != FORMAT {
        return Err(format!("of format {}, this server knows format {FORMAT}", file.format));
    }
    if digest(file.models.get()) != file.sha256 {
        return Err("not what was written: its checksum is another".to_owned());
    }
    let models: BTreeMap<String, Model> = serde_json::from_str(file.models.get())
        .map_err(|error| format!("not a desired state: {error}"))?;
    let models = models.into_iter().map(|(name, model)| {
        let name = ModelName::new(&name).map_err(|error| error.to_string())?;
        Ok((name, model.desired()?))
    });
    Ok(DesiredState { models: models.collect::<Result<_, String>>()? })
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}

impl From<&DesiredModel> for Model {
    fn from(model: &DesiredModel) -> Self {
        let intent = &model.intent;
        let number = |version: &Version| version.number();
        let aliases = intent.aliases.iter();
        let weights = intent.weights.iter().flat_map(Weights::iter);
        Self {
            loaded: match model.desire {
                Desire::Open => None,
                desire => Some(desire == Desire::Loaded),
            },
            chosen: intent.chosen.map(|choice| Chosen {
                version: choice.version.number(),
                newest: choice.newest.number(),
            }),
            aliases: aliases
                .map(|(alias, version)| (alias.to_string(), version.number()))
                .collect(),
            weights: weights.map(|(version, weight)| (version.number(), weight)).collect(),
            shadow: intent.shadow.map(|shadow| (shadow.version.number(), shadow.share)),
            pinned: intent.pinned.iter().map(number).collect(),
            pending: model.pending.as_deref().map(|pending| Box::new(Self::from(pending))),
            callers: model.callers.as_ref().map(CallersForm::from),
        }
    }
}

impl Model {
    fn desired(self) -> Result<DesiredModel, String> {
        let chosen = self.chosen.map(|Chosen { version: chosen, newest }| {
            Ok::<_, String>(Choice { version: version(chosen)?, newest: version(newest)? })
        });
        let aliases = self.aliases.into_iter().map(|(alias, number)| {
            let alias: AliasName = alias.parse().map_err(|error| format!("{error}"))?;
            Ok((alias, version(number)?))
        });
        let weights = self.weights.into_iter();
        let weights = weights.map(|(number, weight)| Ok((version(number)?, weight)));
        let weights: Vec<(Version, u32)> = weights.collect::<Result<_, String>>()?;
        let weights = (!weights.is_empty()).then(|| Weights::new(weights));
        let shadow = self.shadow.map(|(number, share)| {
            Ok::<_, String>(ShadowTarget { version: version(number)?, share })
        });
        let pending = self.pending.map(|pending| pending.desired().map(Box::new));
        Ok(DesiredModel {
            desire: match self.loaded {
                None => Desire::Open,
                Some(true) => Desire::Loaded,
                Some(false) => Desire::Unloaded,
            },
            pending: pending.transpose()?,
            callers: self.callers.map(CallersForm::callers).transpose()?,
            intent: Intent {
                chosen: chosen.transpose()?,
                aliases: aliases.collect::<Result<_, String>>()?,
                weights: weights.transpose().map_err(|error| error.to_string())?,
                shadow: shadow.transpose()?,
                pinned: self.pinned.into_iter().map(version).collect::<Result<_, _>>()?,
            },
        })
    }
}

fn version(number: u64) -> Result<Version, String> {
    Version::new(number).ok_or_else(|| "versions begin at 1".to_owned())
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    //! The state file, fuzzed.

    use super::{FORMAT, digest, read, write};

    /// What a file says of models, under a checksum that is right: what is read of it comes back when it is
    /// written.
    pub fn state_file(models: &[u8]) {
        let Ok(models) = str::from_utf8(models) else { return };
        let sum = digest(models.trim_matches([' ', '\n', '\r', '\t']));
        let file = format!("{{\"format\":{FORMAT},\"sha256\":\"{sum}\",\"models\":{models}}}");
        if let Ok(state) = read(file.as_bytes()) {
            assert_eq!(read(write(&state).as_bytes()), Ok(state));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::{DataType, Dim, Signature, TensorSpec};
    use crate::model::Callers;

    fn callers() -> Callers {
        let spec = |shape, optional| TensorSpec {
            name: "x".to_owned(),
            datatype: DataType::Fp32,
            shape,
            optional,
        };
        let shape =
            vec![Dim::Dynamic("batch".to_owned()), Dim::Dynamic(String::new()), Dim::Fixed(3)];
        let signature =
            Signature { inputs: vec![spec(Some(shape), true)], outputs: vec![spec(None, false)] };
        Callers { version: Version::new(2).unwrap(), signature }
    }

    #[test]
    fn everything_comes_back() {
        let version = |number| Version::new(number).unwrap();
        let intent = Intent {
            chosen: Some(Choice { version: version(1), newest: version(3) }),
            aliases: BTreeMap::from([("stable".parse().unwrap(), version(2))]),
            weights: Some(Weights::new(vec![(version(1), 9_999), (version(2), 1)]).unwrap()),
            shadow: Some(ShadowTarget { version: version(3), share: 100 }),
            pinned: vec![version(u64::MAX)],
        };
        let models = BTreeMap::from([
            (
                ModelName::new("a").unwrap(),
                DesiredModel {
                    desire: Desire::Open,
                    intent: Intent::default(),
                    pending: Some(Box::new(DesiredModel { intent, ..DesiredModel::default() })),
                    callers: Some(callers()),
                },
            ),
            (
                ModelName::new("ünï \"b\"").unwrap(),
                DesiredModel { desire: Desire::Unloaded, ..DesiredModel::default() },
            ),
        ]);
        let state = DesiredState { models };
        assert_eq!(read(write(&state).as_bytes()).unwrap(), state);
        assert_eq!(
            read(write(&DesiredState::default()).as_bytes()).unwrap(),
            DesiredState::default()
        );
    }
}
