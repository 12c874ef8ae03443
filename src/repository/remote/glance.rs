//! A model in a store, seen from afar: by the objects' own times. Each is whole, but one that was written
//! a moment ago may have others to follow.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use object_store::ObjectMeta;
use object_store::path::Path as Key;

use super::cache::Cache;
use super::store::is_sound;
use crate::model::{Glance, ModelName, Version};
use crate::repository::bare;
use crate::repository::sightings::{Looks, Sight};

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
    /// Hidden objects are included: who uploads files one by one may give each a hidden name first.
    looks: Looks,
    is_there: bool,
}

/// What is seen of a model with a folder.
#[derive(Default)]
struct Whole {
    versions: BTreeMap<Version, Seen>,
    beside: String,
    looks: Looks,
}

/// A model: all its objects, and its folder where it has one. Each version has settled by itself.
pub(super) fn of(objects: &[ObjectMeta], folder: Option<&Key>, sight: Sight<'_>) -> Glance {
    let whole = match folder {
        Some(folder) => Whole::of(objects, folder),
        None => Whole::at_root(objects, sight.model),
    };
    let mut watch = Watch { sight, watched: Vec::new() };
    let mut glance = Glance { settled: false, unsettled: Vec::new(), stamp: whole.beside };
    if whole.versions.is_empty() {
        glance.settled = !objects.is_empty() && watch.has_settled(None, &whole.looks);
    }
    for (version, seen) in whole.versions {
        if watch.has_settled(Some(version), &seen.looks) {
            glance.settled = true;
            glance.stamp.extend([seen.stamp, seen.golden]);
        } else {
            glance.unsettled.push(version);
        }
    }
    sight.keep(&watch.watched);
    glance
}

impl Whole {
    fn of(objects: &[ObjectMeta], folder: &Key) -> Self {
        let mut whole = Self::default();
        for object in objects {
            whole.add(object, place(object, folder));
        }
        whole.versions.retain(|_, seen| seen.is_there);
        whole
    }

    /// All but its settings is of its only version.
    fn at_root(objects: &[ObjectMeta], model: &ModelName) -> Self {
        let (mut whole, settings) = (Self::default(), bare::settings_name(model));
        for object in objects {
            let is_settings = object.location.filename() == Some(settings.as_str());
            let place = if is_settings { Place::Beside } else { Place::Version(Version::FIRST) };
            whole.add(object, (place, false));
        }
        whole
    }

    fn add(&mut self, object: &ObjectMeta, (place, is_hidden): (Place, bool)) {
        let name = Cache::name(object);
        let written = SystemTime::from(object.last_modified);
        let written = written.duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = (Path::new(object.location.as_ref()), written);
        self.looks.add(&name, at);
        match place {
            Place::Version(version) => {
                let seen = self.versions.entry(version).or_default();
                seen.is_there = true;
                seen.looks.add(&name, at);
                seen.stamp.push_str(if is_hidden { "" } else { &name });
            }
            Place::Golden(version) => {
                self.versions.entry(version).or_default().golden.push_str(&name);
            }
            Place::Beside => self.beside.push_str(&name),
            Place::Nothing => {}
        }
    }
}

/// A look by which it is told what has settled.
struct Watch<'a> {
    sight: Sight<'a>,
    /// What was left alone only before the server's eyes, or was not.
    watched: Vec<Option<Version>>,
}

impl Watch<'_> {
    fn has_settled(&mut self, version: Option<Version>, looks: &Looks) -> bool {
        let age = self.sight.now.wall.saturating_sub(looks.newest);
        if age >= SETTLING {
            return true;
        }
        self.watched.push(version);
        self.sight.is_unchanged(version, looks, SETTLING)
    }
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
    use crate::repository::sightings::{Now, Sightings};

    /// Objects below the model's folder, each so many seconds old.
    fn seen(objects: &[(&str, u64)]) -> Glance {
        seen_at(objects, (&Sightings::default(), Now::get()))
    }

    fn seen_at(objects: &[(&str, u64)], (sightings, now): (&Sightings, Now)) -> Glance {
        let object = |(path, age): &(&str, u64)| ObjectMeta {
            location: Key::parse(format!("some/m/{path}")).unwrap(),
            last_modified: (UNIX_EPOCH + now.wall - Duration::from_secs(*age)).into(),
            size: *age,
            e_tag: Some(format!("{age}")),
            version: None,
        };
        let objects: Vec<_> = objects.iter().map(object).collect();
        let model = ModelName::new("m").unwrap();
        let sight = Sight { model: &model, sightings, now };
        of(&objects, Some(&Key::from("some/m")), sight)
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

    #[test]
    fn what_is_of_a_time_to_come_settles_before_the_servers_eyes() {
        let (begin, model) = (Now::get(), ModelName::new("m").unwrap());
        let object = |path: &str| ObjectMeta {
            location: Key::parse(format!("some/m/{path}")).unwrap(),
            last_modified: (UNIX_EPOCH + begin.wall + Duration::from_hours(1)).into(),
            size: 1,
            e_tag: None,
            version: None,
        };
        let (folder, sightings) = (Key::from("some/m"), Sightings::default());
        let settled = |after: u64, path: &str| {
            let steady = begin.steady + Duration::from_secs(after);
            let sight =
                Sight { model: &model, sightings: &sightings, now: Now { steady, ..begin } };
            of(&[object(path)], Some(&folder), sight).settled
        };
        let first = [0, 4, 5, 60].map(|after| settled(after, "1/model.onnx"));
        assert_eq!(first, [false, false, true, true]);
        assert!(!settled(61, "1/other") && settled(66, "1/other"));
        assert!(!settled(67, "model.yaml") && settled(72, "model.yaml"));
    }
}
