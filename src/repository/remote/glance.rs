//! A model in a store, seen from afar: by the objects' own times. Each is whole, but one that was written
//! a moment ago may have others to follow.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::ObjectMeta;
use object_store::path::Path as Key;

use super::cache::Cache;
use super::store::{self, is_sound};
use crate::model::{Glance, Version};

/// How long a version must have been left alone to be followed.
const SETTLING: Duration = Duration::from_secs(5);

/// What an object below a model's folder belongs to.
enum Place {
    Version(Version),
    /// Golden samples of a version.
    Golden(Version),
    /// Settings and golden samples of all versions.
    Beside,
    Nothing,
}

/// What is seen of a version.
#[derive(Default)]
struct Seen {
    stamp: String,
    golden: String,
    is_young: bool,
    is_there: bool,
}

/// A model with a folder: each of its versions has settled by itself.
pub(super) fn of_folder(objects: &[ObjectMeta], folder: &Key) -> Glance {
    let mut versions = BTreeMap::<Version, Seen>::new();
    let mut stamp = String::new();
    for object in objects {
        let name = Cache::name(object);
        let (place, is_hidden) = place(object, folder);
        match place {
            Place::Version(version) => {
                let seen = versions.entry(version).or_default();
                seen.is_there = true;
                seen.is_young |= is_young(object);
                // Who uploads files one by one may give each a hidden name first.
                seen.stamp.push_str(if is_hidden { "" } else { &name });
            }
            Place::Golden(version) => {
                versions.entry(version).or_default().golden.push_str(&name);
            }
            Place::Beside => stamp.push_str(&name),
            Place::Nothing => {}
        }
    }
    versions.retain(|_, seen| seen.is_there);
    let (unsettled, settled): (BTreeMap<_, _>, BTreeMap<_, _>) =
        versions.into_iter().partition(|(_, seen)| seen.is_young);
    for seen in settled.values() {
        stamp.push_str(&seen.stamp);
        stamp.push_str(&seen.golden);
    }
    let has_none = settled.is_empty() && unsettled.is_empty();
    let is_settled = if has_none { have_settled(objects) } else { !settled.is_empty() };
    Glance { settled: is_settled, unsettled: unsettled.into_keys().collect(), stamp }
}

/// A model at the root, with everything that belongs to it.
pub(super) fn at_root(objects: &[ObjectMeta]) -> Glance {
    let settled = have_settled(objects);
    let unsettled = if settled { Vec::new() } else { vec![Version::FIRST] };
    Glance { settled, unsettled, stamp: objects.iter().map(Cache::name).collect() }
}

fn have_settled(objects: &[ObjectMeta]) -> bool {
    !objects.is_empty() && !objects.iter().any(is_young)
}

fn is_young(object: &ObjectMeta) -> bool {
    store::age(object) < SETTLING
}

/// What an object belongs to, and whether it is hidden there.
fn place(object: &ObjectMeta, folder: &Key) -> (Place, bool) {
    let parts = object.location.prefix_match(folder).into_iter().flatten();
    let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let is_hidden = !parts.iter().copied().all(is_sound);
    let place = match (version(&parts), parts.as_slice()) {
        (Some(version), _) => Place::Version(version),
        _ if is_hidden => Place::Nothing,
        (None, ["golden", below @ ..]) => match (version(below), below) {
            (Some(version), [_, _]) => Place::Golden(version),
            (_, [_]) => Place::Beside,
            _ => Place::Nothing,
        },
        (None, [_]) => Place::Beside,
        _ => Place::Nothing,
    };
    (place, is_hidden)
}

fn version(parts: &[&str]) -> Option<Version> {
    parts.first()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects below the model's folder, each so many seconds old.
    fn seen(objects: &[(&str, u64)]) -> Glance {
        let object = |(path, age): &(&str, u64)| ObjectMeta {
            location: Key::parse(format!("some/m/{path}")).unwrap(),
            last_modified: (std::time::SystemTime::now() - Duration::from_secs(*age)).into(),
            size: *age,
            e_tag: Some(format!("{age}")),
            version: None,
        };
        let objects: Vec<_> = objects.iter().map(object).collect();
        of_folder(&objects, &Key::from("some/m"))
    }

    fn versions(numbers: &[u64]) -> Vec<Version> {
        numbers.iter().map(|number| Version::new(*number).unwrap()).collect()
    }

    #[track_caller]
    fn check(objects: &[(&str, u64)], (settled, unsettled): (bool, &[u64])) {
        let glance = seen(objects);
        assert_eq!((glance.settled, glance.unsettled), (settled, versions(unsettled)));
    }

    #[test]
    fn each_version_settles_by_itself() {
        check(&[("1/model.onnx", 60), ("2/model.onnx", 0)], (true, &[2]));
        check(&[("1/model.onnx", 60), ("2/model.onnx", 60)], (true, &[]));
        check(
            &[("10/model.onnx", 60), ("10/data/w.bin", 0), ("9/model.onnx", 0)],
            (false, &[9, 10]),
        );
        check(&[("1/model.onnx", 60), ("1/.w.bin.a7", 0)], (false, &[1]));
        check(&[("1/model.onnx", 60), ("model.yaml", 0), (".2/model.onnx", 0)], (true, &[]));
        check(&[("model.yaml", 60)], (true, &[]));
        check(&[("model.yaml", 0)], (false, &[]));
        check(&[], (false, &[]));
    }

    #[test]
    fn what_somebody_writes_and_what_is_none_of_the_models_is_not_in_the_stamp() {
        let stamp = |more: &[(&str, u64)]| seen(&[&[("1/model.onnx", 60)], more].concat()).stamp;
        // The age is another one at each call; what is told of the object is not.
        let before = stamp(&[]).len();
        let others = ["2/model.onnx", ".2/model.onnx", "2.partial/w.bin", "golden/2/a.json"];
        for (path, age) in others.map(|path| (path, 0)).into_iter().chain([("1/.hidden", 60)]) {
            assert_eq!(stamp(&[(path, age)]).len(), before, "{path}");
        }
        for path in ["model.yaml", "labels.txt", "golden/a.json", "golden/1/a.json", "1/data/w.bin"]
        {
            assert!(stamp(&[("2/model.onnx", 0), (path, 60)]).len() > before, "{path}");
        }
        assert!(stamp(&[("2/model.onnx", 60)]).len() > before, "it has settled");
    }
}
