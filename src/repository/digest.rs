//! The identity of a version: a SHA-256 over its files.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::bare::VersionFile;
use super::manifest;
use crate::hex::hex;

/// The files of the version in `folder`: what is below it, but its manifest and what is hidden. Links to
/// files inside `root` are followed; any other link, and what is neither file nor folder, is an error.
pub(super) fn files(folder: &Path, root: &Path) -> io::Result<Vec<VersionFile>> {
    let mut paths = Vec::new();
    collect(folder, root, &mut paths)?;
    let named = |path: PathBuf| {
        let name = path.strip_prefix(folder).unwrap_or(&path).to_owned();
        VersionFile { name, path }
    };
    Ok(paths.into_iter().map(named).collect())
}

/// The digest of a version's files, in lower-case hexadecimal.
///
/// One file: that file's SHA-256, so that `sha256sum model.onnx` shows the same. Several: the SHA-256
/// of the lines that `sha256sum` prints for them, sorted by path.
pub(super) fn of_files(mut files: Vec<VersionFile>) -> io::Result<String> {
    if let [file] = files.as_slice() {
        return of_file(&file.path);
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    let mut listing = String::new();
    for VersionFile { name, path } in &files {
        let (digest, name) = (of_file(path)?, name.display());
        writeln!(listing, "{digest}  {name}").expect("writing to a string cannot fail");
    }
    Ok(hex(&Sha256::digest(listing)))
}

/// The bytes of a version's files, of what links lead to where there are any.
pub(super) fn size(files: &[VersionFile]) -> io::Result<u64> {
    files.iter().map(|file| Ok(fs::metadata(&file.path)?.len())).sum()
}

pub(super) fn of_file(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The files below a folder, those with a leading dot left out.
fn collect(folder: &Path, root: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // What is said about the files is none of them.
        if entry.file_name().as_encoded_bytes().starts_with(b".")
            || entry.file_name() == manifest::NAME
        {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&path, root, files)?;
        } else if kind.is_file() || links_to_a_file(&path, root)? {
            files.push(path);
        } else {
            let what = format!("{} is no file, nor a link to one in here", path.display());
            return Err(io::Error::other(what));
        }
    }
    Ok(())
}

fn links_to_a_file(path: &Path, root: &Path) -> io::Result<bool> {
    let target = path.canonicalize()?;
    Ok(target.is_file() && target.starts_with(root))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn one_file_has_its_own_digest_and_several_that_of_their_listing() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("model.onnx"), "abc").unwrap();
        let of_folder = || of_files(files(folder.path(), folder.path()).unwrap()).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_folder(), abc);
        fs::create_dir(path("data")).unwrap();
        fs::write(path("data/weights"), "").unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let listing = format!("{empty}  data/weights\n{abc}  model.onnx\n");
        assert_eq!(of_folder(), hex(&Sha256::digest(listing)));
    }

    #[test]
    fn what_is_no_file_of_a_version_is_neither_read_nor_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path(".hidden")).unwrap();
        for name in ["model.onnx", ".hidden/weights", manifest::NAME] {
            fs::write(path(name), "abc").unwrap();
        }
        let root = folder.path().canonicalize().unwrap();
        // As an editor does that has a file open.
        symlink("nobody@nowhere:1", path(".#model.onnx")).unwrap();
        let found = files(folder.path(), &root).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(size(&found).unwrap(), 3);
        symlink("model.onnx", path("same")).unwrap();
        assert_eq!(size(&files(folder.path(), &root).unwrap()).unwrap(), 6);
        symlink("nowhere", path("dangling")).unwrap();
        assert!(files(folder.path(), &root).is_err());
    }
}
