//! What sources in object stores have to do when several use one cache, and when there is no room in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::faulty::{Fault, Faulty, leave_a_part, names, problem, refused};
use super::fixtures::{Fixture, Memory, key, over};
use super::{ABC, digest, digest_of, id};
use crate::causes;
use crate::model::{ModelSource, VersionPolicy};
use crate::repository::RemoteRepository;

#[test]
fn content_that_rots_in_the_cache_is_fetched_again() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    assert_eq!(digest(&fixture, &id("a", 1)), ABC);
    let blob = fixture.cache.path().join("blobs").join(ABC);
    fs::write(&blob, b"abd").unwrap();
    assert_eq!(digest(&fixture, &id("a", 1)), ABC);
    let known = names(&fixture.cache.path().join("known"));
    fs::write(&known[0], "../../elsewhere").unwrap();
    assert_eq!(digest(&fixture, &id("a", 1)), ABC);
    // Another process finds what this one has left.
    let reopened = fixture.another(Arc::clone(&fixture.store));
    assert_eq!(digest_of(&reopened, &id("a", 1)), ABC);
}

#[test]
fn what_was_fetched_stays_as_it_is_for_whoever_has_it() {
    let fixture = Memory::with_cache_of(0);
    fixture.put("a/1/model.onnx", b"abc");
    let source = fixture.source();
    let another = fixture.another(Arc::clone(&fixture.store));
    let old = source.fetch(&id("a", 1)).unwrap();
    fixture.put("a/1/model.onnx", b"xyz");
    fixture.put("a/1/weights.bin", b"w");
    fixture.put("a/model.yaml", b"version_policy: all\n");
    let new = another.fetch(&id("a", 1)).unwrap();
    let newest = source.fetch(&id("a", 1)).unwrap();
    source.settings(&id("a", 1).model).unwrap();
    assert_eq!(source.digest(&old).unwrap(), ABC);
    assert_eq!(source.digest(&new).unwrap(), source.digest(&newest).unwrap());
    let folder = old.graph.parent().unwrap().to_owned();
    let clone = old.clone();
    drop(old);
    assert!(folder.exists(), "somebody has it");
    drop((clone, newest));
    assert!(!folder.exists(), "nobody has it any more");
    assert!(new.graph.exists(), "another process has it");
}

/// Fetches `a/1` and, from the moment its second file is asked for, whatever `meanwhile` does.
fn fetched_with(
    fixture: &Memory,
    meanwhile: impl Fn() + Clone + Send + Sync + 'static,
) -> RemoteRepository {
    let mut store = Faulty::new(&fixture.store, Fault::None);
    let blob = fixture.cache.path().join("blobs").join(ABC);
    store.before_get = Box::new(move |key| {
        let (blob, meanwhile) = (blob.clone(), meanwhile.clone());
        let is_second = key.as_ref().ends_with("weights.bin");
        let waiting = async move {
            // The first is in the cache, and nobody has it yet.
            while is_second && !blob.exists() {
                tokio::task::yield_now().await;
            }
            if is_second {
                tokio::task::spawn_blocking(meanwhile).await.unwrap();
            }
            Ok(())
        };
        waiting.boxed()
    });
    fixture.another(store)
}

#[test]
fn content_that_is_about_to_be_laid_out_is_not_thrown_away() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    fixture.put("a/1/weights.bin", b"w");
    fixture.put("b/1/model.onnx", b"b");
    let inner: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&fixture.store);
    let tidy = Arc::new(over(inner, (fixture.cache.path(), 0), &fixture.runtime));
    let repository = fetched_with(&fixture, move || drop(tidy.fetch(&id("b", 1)).unwrap()));
    let files = repository.fetch(&id("a", 1)).unwrap();
    assert_eq!(fs::read(&files.graph).unwrap(), b"abc");
}

#[test]
fn settings_are_right_while_others_ask_for_them_too() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    fixture.put("a/model.yaml", b"version_policy: all\n");
    let name = id("a", 1).model;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let settings = fixture.source().settings(&name).unwrap();
                    assert_eq!(settings.version_policy, VersionPolicy::All);
                }
            });
        }
    });
}

#[test]
fn many_versions_are_fetched_at_once_with_a_cache_too_small_for_them() {
    let fixture = Memory::with_cache_of(100);
    let ids: Vec<_> = ["a", "b"].iter().flat_map(|model| [id(model, 1), id(model, 2)]).collect();
    for (at, id) in ids.iter().enumerate() {
        fixture.put(&format!("{}/{}/model.onnx", id.model, id.version), &[at.to_le_bytes()[0]; 70]);
        fixture.put(&format!("{}/{}/empty", id.model, id.version), b"");
    }
    thread::scope(|scope| {
        for thread in 0..4 {
            let (fixture, ids) = (&fixture, &ids);
            scope.spawn(move || {
                for round in 0..40 {
                    let at = (round * (thread + 1)) % ids.len();
                    let files = fixture.source().fetch(&ids[at]).unwrap();
                    assert_eq!(fs::read(&files.graph).unwrap(), [at.to_le_bytes()[0]; 70]);
                }
            });
        }
    });
    let sizes = names(&fixture.cache.path().join("blobs"));
    let size: u64 = sizes.iter().map(|blob| fs::metadata(blob).unwrap().len()).sum();
    assert!(size <= 100, "{size} bytes are left");
}

#[test]
fn what_another_downloads_is_waited_for() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    let (asked, is_asked) = mpsc::channel();
    let go = Arc::new(tokio::sync::Notify::new());
    let mut slow = Faulty::new(&fixture.store, Fault::None);
    let gate = Arc::clone(&go);
    slow.before_get = Box::new(move |_| {
        asked.send(()).unwrap();
        let gate = Arc::clone(&gate);
        async move {
            gate.notified().await;
            Ok(())
        }
        .boxed()
    });
    let mut second = Faulty::new(&fixture.store, Fault::None);
    second.before_list = Box::new(move |_| {
        go.notify_one();
        async { Ok(()) }.boxed()
    });
    second.before_get = Box::new(|key| std::future::ready(Err(refused(key))).boxed());
    let (first, second) = (fixture.another(slow), fixture.another(second));
    let fetching = thread::spawn(move || digest_of(&first, &id("a", 1)));
    is_asked.recv().unwrap();
    assert_eq!(digest_of(&second, &id("a", 1)), ABC);
    assert_eq!(fetching.join().unwrap(), ABC);
}

/// Leaves a part that was gone on with so many days after now.
fn part_of(cache: &Path, (name, size, days): (&str, usize, i64)) -> PathBuf {
    let part = cache.join("parts").join(name);
    fs::write(&part, vec![0; size]).unwrap();
    let (now, distance) = (SystemTime::now(), Duration::from_hours(24 * days.unsigned_abs()));
    let then = if days < 0 { now - distance } else { now + distance };
    File::options().append(true).open(&part).unwrap().set_modified(then).unwrap();
    part
}

#[test]
fn what_nobody_needs_any_more_is_tidied_away() {
    let fixture = Memory::with_cache_of(100);
    let folder = |name: &str| fixture.cache.path().join(name);
    part_of(fixture.cache.path(), ("old", 10, -10));
    part_of(fixture.cache.path(), ("large", 90, -1));
    let recent = part_of(fixture.cache.path(), ("recent", 10, 1));
    for round in 0..5_u8 {
        fixture.put("a/1/model.onnx", &[round; 60]);
        drop(fixture.source().fetch(&id("a", 1)).unwrap());
    }
    assert_eq!(names(&folder("parts")), [recent]);
    assert_eq!(names(&folder("blobs")).len(), 1);
    assert_eq!(names(&folder("known")).len(), 1);
    // What was fetched by a life that was killed.
    let left = folder("trees").join("2");
    fs::create_dir(&left).unwrap();
    File::create(folder("trees").join("2.lock")).unwrap();
    fs::hard_link(&names(&folder("blobs"))[0], left.join("model.onnx")).unwrap();
    let files = fixture.source().fetch(&id("a", 1)).unwrap();
    drop(fixture.another(Arc::clone(&fixture.store)));
    assert!(!left.exists());
    assert!(files.graph.exists(), "this life has not ended");
}

#[test]
fn a_fetch_that_fails_tidies_up_too() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    let mut store = Faulty::new(&fixture.store, Fault::None);
    store.before_get = Box::new(|key| std::future::ready(Err(refused(key))).boxed());
    let repository = over(Arc::new(store), (fixture.cache.path(), 0), &fixture.runtime);
    part_of(fixture.cache.path(), ("another", 10, -1));
    problem(&repository);
    assert!(names(&fixture.cache.path().join("parts")).is_empty());
    assert!(names(&fixture.cache.path().join("trees/1")).is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_what_comes_after_it_works() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    assert_eq!(digest(&fixture, &id("a", 1)), ABC);
    leave_a_part(fixture.cache.path(), (ABC, b""));
    let part = names(&fixture.cache.path().join("parts")).remove(0);
    fs::remove_file(&part).unwrap();
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let told = problem(fixture.source());
    assert!(told.contains("model.onnx") && told.contains("No space left"), "{told}");
    assert!(told.contains("cache"), "{told}");
    // It may have been removed, for nothing could be kept.
    fs::remove_file(&part).ok();
    assert_eq!(digest(&fixture, &id("a", 1)), ABC);
}

#[test]
fn a_cache_that_cannot_be_written_is_told() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    for (folder, part) in [("parts", "model.onnx"), ("trees/0", "trees")] {
        let folder = fixture.cache.path().join(folder);
        fs::rename(&folder, folder.with_extension("away")).unwrap();
        fs::write(&folder, b"").unwrap();
        let told = problem(fixture.source());
        assert!(told.contains(part) && told.contains("ot a directory"), "{told}");
        fs::remove_file(&folder).unwrap();
        fs::rename(folder.with_extension("away"), &folder).unwrap();
        assert_eq!(digest(&fixture, &id("a", 1)), ABC);
        fs::remove_file(fixture.cache.path().join("blobs").join(ABC)).unwrap();
    }
    let file = fixture.cache.path().join("file");
    fs::write(&file, b"").unwrap();
    let inner: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&fixture.store);
    let handle = fixture.runtime.handle().clone();
    let opened = RemoteRepository::in_store((inner, key("")), (&file, 1), handle);
    assert!(causes::of_error(&opened.unwrap_err()).contains("file"));
}
