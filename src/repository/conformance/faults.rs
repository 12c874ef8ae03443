//! What sources in object stores have to do with networks that break and stores that err.

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use object_store::{Error, ObjectStoreExt as _};

use super::cutter::Cutter;
use super::faulty::{Fault, Faulty, ends, leave_a_part, names, problem};
use super::fixtures::{Fixture, Memory, Real, reach};
use super::stores::{Protocol, StoreServer};
use super::{ABC, digest, digest_of, id};
use crate::model::{ModelName, ModelSource, SourceError};
use crate::repository::RemoteRepository;

#[test]
fn a_download_goes_on_where_its_connection_broke() {
    for protocol in StoreServer::installed() {
        let fixture = Real::new(protocol);
        println!("over {}", fixture.name());
        let content: Vec<u8> = (0..2_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        fixture.put("a/1/model.onnx", &content);
        let whole = digest(&fixture, &id("a", 1));
        let cutter = Cutter::before(&fixture.server.endpoint, 300_000);
        let cache = tempfile::tempdir().unwrap();
        let place = (cache.path(), &fixture.runtime);
        let repository = reach(&fixture.server, &cutter.address, place);
        assert_eq!(digest_of(&repository, &id("a", 1)), whole);
        let cuts = cutter.cuts.load(Ordering::SeqCst);
        assert!(cuts >= 5, "{cuts} connections were cut");
        let asked = cutter.asked.lock().unwrap().to_lowercase();
        assert!(asked.contains("range: bytes="), "it went on, and did not begin anew");
    }
}

#[test]
fn a_download_goes_on_in_another_life() {
    let fixture = Real::new(Protocol::S3);
    let content = vec![7_u8; 1_000_000];
    fixture.put("a/1/model.onnx", &content);
    let whole = digest(&fixture, &id("a", 1));
    leave_a_part(fixture.cache.path(), (&whole, &content[..400_000]));
    let cutter = Cutter::before(&fixture.server.endpoint, usize::MAX);
    let place = (fixture.cache.path(), &fixture.runtime);
    let repository = reach(&fixture.server, &cutter.address, place);
    assert_eq!(digest_of(&repository, &id("a", 1)), whole);
    assert!(cutter.asked.lock().unwrap().to_lowercase().contains("range: bytes=400000-"));
}

#[test]
fn a_store_without_ranges_is_asked_for_the_whole_again() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    assert_eq!(digest(&fixture, &id("a", 1)), ABC);
    leave_a_part(fixture.cache.path(), (ABC, b"ab"));
    let repository = fixture.another(Faulty::new(&fixture.store, Fault::NoRanges));
    assert_eq!(digest_of(&repository, &id("a", 1)), ABC);
}

#[test]
fn a_store_that_lists_folder_by_folder_is_read() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    fixture.put("a/1/data/deep/weights.bin", b"w");
    let whole = digest(&fixture, &id("a", 1));
    let stamp = |source: &dyn ModelSource| source.glance(&ModelName::new("a").unwrap()).unwrap();
    let repository = fixture.another(Faulty::new(&fixture.store, Fault::Shallow));
    assert_eq!(digest_of(&repository, &id("a", 1)), whole);
    assert_eq!(stamp(&repository), stamp(fixture.source()));
}

#[test]
fn objects_that_stand_for_folders_are_no_files() {
    for protocol in [Protocol::S3, Protocol::Gcs] {
        let fixture = Real::new(protocol);
        println!("over {}", fixture.name());
        fixture.put("a/1/model.onnx", b"abc");
        fixture.put("a/1/data/weights.bin", b"w");
        let whole = digest(&fixture, &id("a", 1));
        for folder in ["", "a/", "a/1/", "a/1/data/", "a/1/none/", "a/golden/"] {
            fixture.put(folder, b"");
        }
        assert_eq!(digest(&fixture, &id("a", 1)), whole);
        assert!(fixture.source().settings(&ModelName::new("a").unwrap()).is_ok());
        assert!(fixture.source().samples(&id("a", 1)).unwrap().is_empty());
        assert_eq!(fixture.source().list().unwrap().len(), 1);
    }
}

#[test]
fn a_store_that_sends_less_than_it_says_is_given_up() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    let repository = fixture.another(Faulty::new(&fixture.store, Fault::Silent));
    let told = ends(move || problem(&repository));
    assert!(told.contains("model.onnx") && told.contains("0 of its 3 bytes"), "{told}");
}

/// What is told of an object that becomes `after` between its listing and its download.
fn changed_to(after: &'static [u8], fault: Fault) -> String {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    let mut store = Faulty::new(&fixture.store, fault);
    let inner = Arc::clone(&fixture.store);
    store.before_get = Box::new(move |key| {
        let (inner, key) = (Arc::clone(&inner), key.clone());
        async move { inner.put(&key, after.into()).await.map(drop) }.boxed()
    });
    let repository = fixture.another(store);
    ends(move || problem(&repository))
}

#[test]
fn an_object_that_changes_under_its_download_is_not_mixed() {
    let cases = [
        (&b"xyz"[..], Fault::None),
        (b"abcd", Fault::Untagged),
        (b"ab", Fault::Untagged),
        (b"", Fault::Untagged),
        (b"xyz", Fault::Aging),
    ];
    for (after, fault) in cases {
        let told = changed_to(after, fault);
        assert!(told.contains("model.onnx") && told.contains("has changed"), "{told}");
    }
}

#[test]
fn a_part_of_what_an_object_was_is_not_gone_on_with() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"xyzabc");
    digest(&fixture, &id("a", 1));
    let part = names(&fixture.cache.path().join("known")).remove(0);
    fs::write(fixture.cache.path().join("parts").join(part.file_name().unwrap()), b"xyz").unwrap();
    fixture.put("a/1/model.onnx", b"abc");
    assert_eq!(digest(&fixture, &id("a", 1)), ABC);
}

#[test]
fn what_a_store_does_not_answer_is_told_from_what_it_cannot() {
    let kind_of = |error: fn() -> Error| {
        let fixture = Memory::new();
        fixture.put("a/1/model.onnx", b"abc");
        let mut store = Faulty::new(&fixture.store, Fault::None);
        store.before_list = Box::new(move |_| async move { Err(error()) }.boxed());
        match fixture.another(store).fetch(&id("a", 1)) {
            Err(SourceError::Io { source, .. }) => source.kind(),
            other => panic!("{other:?}"),
        }
    };
    let broken = || Error::Generic { store: "S3", source: "the connection was refused".into() };
    assert_eq!(kind_of(broken), ErrorKind::NotConnected);
    let unknown = || Error::NotSupported { source: "it lists nothing".into() };
    assert_eq!(kind_of(unknown), ErrorKind::Unsupported);
}

#[test]
fn silence_of_a_store_is_not_waited_for_without_end() {
    let options = RemoteRepository::client_options(&"http://localhost/models".parse().unwrap());
    let of = |name| options.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    assert_eq!(of("read_timeout"), Some("30s"));
    assert_eq!(of("allow_http"), Some("true"));
}
