//! What each place of an output means: one label in each line of a file beside the settings.

use std::fs;
use std::path::Path;

/// The largest file of labels.
const LARGEST: u64 = 1 << 24;

/// Reads a file of labels, given by its name, that lies beside the settings.
pub(super) type ReadLabels<'a> = &'a dyn Fn(&str) -> Result<Vec<String>, String>;

/// The labels in a file. White space around them is left out; an empty line is a place without a label.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn read(path: &Path) -> Result<Vec<String>, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > LARGEST {
        return Err(format!("it has {size} bytes, {LARGEST} at most are read"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

/// # Errors
/// A name that is not one of a file beside the settings.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Err(format!("'{name}' is no name of a file beside this one"));
    }
    Ok(())
}
