//! The key, section or variable that was probably meant.

use super::settings::Setting;
use crate::nearest::{ALIKE, best, name};

/// The known key nearest to one that is unknown: of the same name in another section, or of a name
/// that is alike.
pub(super) fn key(wrong: &str, table: &[Setting]) -> Option<&'static str> {
    let (section, key) = wrong.rsplit_once('.').unwrap_or(("", wrong));
    let score = |setting: &Setting| {
        let (known_section, known_key) = setting.names();
        let names = strsim::jaro_winkler(key, known_key);
        let sections = strsim::jaro_winkler(section, known_section);
        // The section counts only among names that are alike.
        if names > ALIKE { names + sections / 10.0 } else { 0.0 }
    };
    best(table.iter().map(|setting| (score(setting), setting.key)))
}

/// The known section nearest to one that is unknown.
pub(super) fn section(wrong: &str, table: &[Setting]) -> Option<&'static str> {
    name(wrong, table.iter().map(|setting| setting.names().0))
}

/// The known variable nearest to one that is unknown.
pub(super) fn variable(wrong: &str, table: &[Setting], prefix: &str) -> Option<String> {
    let stem = |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned();
    let wrong = stem(wrong);
    let variables = table.iter().map(Setting::variable);
    best(variables.map(|known| (strsim::jaro_winkler(&wrong, &stem(&known)), known)))
}

#[cfg(test)]
mod tests {
    use super::super::SETTINGS;
    use super::*;

    #[test]
    fn keys() {
        for (wrong, near) in [
            ("server.listn", Some("server.listen")),
            ("server.Listen", Some("server.listen")),
            ("models.listen", Some("server.listen")),
            ("listen", Some("server.listen")),
            ("lifecycle.timeout", Some("webhooks.timeout")),
            ("lifecycle.shutdown_timout", Some("lifecycle.shutdown_timeout")),
            ("server.color", None),
            ("", None),
        ] {
            assert_eq!(key(wrong, SETTINGS), near, "{wrong}");
        }
    }

    #[test]
    fn sections_and_variables() {
        assert_eq!(section("sever", SETTINGS), Some("server"));
        assert_eq!(section("database", SETTINGS), None);
        let near = |wrong| variable(wrong, SETTINGS, "ONWARD_");
        assert_eq!(near("ONWARD_MODEL_REPOSITORY").as_deref(), Some("ONWARD_MODELS_REPOSITORY"));
        assert_eq!(near("ONWARD_COLOR"), None);
    }
}
