//! What reads bytes of strangers, as functions that take any bytes: none panics, runs long or takes much
//! memory, whatever they are. `fuzz/` makes up the bytes. No part of the API.

pub use crate::auth::fuzzing::credential;
pub use crate::external_data::fuzzing::graph_references;
pub use crate::grpc::fuzzing::grpc_infer;
pub use crate::http::fuzzing::{body_coding, infer_binary, infer_json, tfs_predict};
pub use crate::repository::fuzzing::{config_pbtxt, golden, manifest, model_yaml};
pub use crate::state_file::fuzzing::state_file;
pub use crate::trail::fuzzing::trace_context;

/// Something that takes any bytes, with its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 13] = [
    ("body_coding", body_coding),
    ("config_pbtxt", config_pbtxt),
    ("credential", credential),
    ("golden", golden),
    ("graph_references", graph_references),
    ("grpc_infer", grpc_infer),
    ("infer_binary", infer_binary),
    ("infer_json", infer_json),
    ("manifest", manifest),
    ("model_yaml", model_yaml),
    ("state_file", state_file),
    ("tfs_predict", tfs_predict),
    ("trace_context", trace_context),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    /// What is in a folder, by name; nothing where there is no folder.
    fn entries(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    }

    /// The names of what is in a folder.
    fn names(folder: &Path) -> Vec<String> {
        let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries(folder).into_iter().map(name).collect()
    }

    #[test]
    fn what_was_found_once_is_not_found_again() {
        for (name, run) in TARGETS {
            let seeds = entries(&folder("seeds").join(name));
            assert!(!seeds.is_empty(), "{name} has no seeds");
            for file in seeds.into_iter().chain(entries(&folder("regressions").join(name))) {
                println!("{}", file.display());
                run(&fs::read(&file).unwrap());
            }
        }
    }

    #[test]
    fn each_is_a_target_of_cargo_fuzz() {
        let known = TARGETS.map(|(name, _)| name);
        assert_eq!(names(&folder("targets")), known);
        let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
        for name in known {
            let path = format!("path = \"targets/{name}.rs\"");
            assert!(manifest.contains(&path), "fuzz/Cargo.toml has no {path}");
            let target = fs::read_to_string(folder("targets").join(format!("{name}.rs"))).unwrap();
            assert!(target.contains(&format!("fuzzing::{name}(")), "{target}");
        }
        for kept in ["seeds", "regressions"].map(folder) {
            let strange: Vec<String> =
                names(&kept).into_iter().filter(|name| !known.contains(&name.as_str())).collect();
            assert!(strange.is_empty(), "{} is of no target: {strange:?}", kept.display());
        }
    }
}
