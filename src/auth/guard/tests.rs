use std::fs;

use tempfile::TempDir;

use super::*;
use crate::auth::{NewKey, Role, Wish};

fn key(name: &str, roles: &[Role]) -> NewKey {
    let roles = roles.to_vec();
    let wish = Wish { name: name.to_owned(), roles, models: Vec::new(), expires: None };
    NewKey::generate(&wish).unwrap()
}

fn write(path: &Path, keys: &[&NewKey]) {
    let entries: String = keys.iter().map(|key| key.entry.as_str()).collect();
    let none = if keys.is_empty() { " []" } else { "" };
    fs::write(path, format!("keys:{none}\n{entries}")).unwrap();
}

fn open(path: &Path, anonymous: &[Role]) -> (Guard, EventBus) {
    let events = EventBus::new(16);
    let anonymous = anonymous.iter().copied().collect();
    let options = Options { keys_file: Some(path.to_owned()), tokens: None, anonymous };
    (Guard::open(options, events.clone()).unwrap(), events)
}

fn admit(guard: &Guard, key: &str, deed: Deed) -> Result<String, Denied> {
    guard.admit(Presented::Bearer(key.as_bytes()), deed).map(|access| access.who())
}

#[test]
fn a_key_lets_in_for_what_it_is() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("keys.yaml");
    let ci = key("ci", &[Role::Infer]);
    write(&path, &[&ci]);
    let (guard, _) = open(&path, &[]);
    assert_eq!(admit(&guard, &ci.key, Deed::Infer), Ok("key:ci".to_owned()));
    let (who, needs) = ("key:ci".to_owned(), "the role manage");
    assert_eq!(admit(&guard, &ci.key, Deed::Manage), Err(Denied::Role { who, needs }));
    for wrong in [&ci.key[1..], "onw_", "a.b.c", &ci.entry[20..84]] {
        let unknown = Denied::Invalid(Invalid::Unknown);
        assert_eq!(admit(&guard, wrong, Deed::Infer), Err(unknown), "{wrong}");
    }
    let nothing = guard.admit(Presented::Nothing, Deed::Describe).map(|access| access.who());
    assert_eq!(nothing, Err(Denied::Missing));
    let malformed = guard.admit(Presented::Malformed, Deed::Describe).map(|access| access.who());
    assert_eq!(malformed, Err(Denied::Invalid(Invalid::Malformed)));
}

#[test]
fn whoever_presents_nothing_may_do_what_everybody_may() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("keys.yaml");
    write(&path, &[]);
    let (guard, _) = open(&path, &[Role::Read]);
    let nothing = |deed| guard.admit(Presented::Nothing, deed).map(|access| access.who());
    assert_eq!(nothing(Deed::Read), Ok("anonymous".to_owned()));
    assert_eq!(nothing(Deed::Infer), Err(Denied::Missing));
    // A wrong credential is not the same as none.
    assert_eq!(admit(&guard, "onw_x", Deed::Read), Err(Denied::Invalid(Invalid::Unknown)));
}

#[test]
fn keys_come_and_go_with_the_file_and_a_broken_one_changes_nothing() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("keys.yaml");
    let (old, new) = (key("old", &[Role::Infer]), key("new", &[Role::Infer]));
    write(&path, &[&old]);
    let (guard, events) = open(&path, &[]);
    let access = guard.admit(Presented::Key(old.key.as_bytes()), Deed::Infer).unwrap();
    assert!(guard.again(&access, Deed::Infer).is_ok());
    let told = |sequence| match &events.since(sequence).events[..] {
        [record] => match &record.event {
            Event::Configuration { changed, detail, .. } => (changed.clone(), detail.clone()),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };

    fs::write(&path, "keys: [{name: old, sha256: onw_secret, roles: [read]}]").unwrap();
    guard.look();
    guard.look();
    guard.look();
    let (changed, detail) = told(0);
    assert!(changed.is_empty() && detail.contains("sha256 has to be the 64"), "{detail}");
    assert!(detail.contains("keys.yaml") && !detail.contains("onw_secret"), "{detail}");
    assert!(admit(&guard, &old.key, Deed::Infer).is_ok());

    write(&path, &[&new]);
    guard.look();
    assert!(admit(&guard, &new.key, Deed::Infer).is_err(), "it may still be written");
    guard.look();
    assert_eq!(told(1), (vec!["auth.keys_file".to_owned()], String::new()));
    assert!(admit(&guard, &new.key, Deed::Infer).is_ok());
    assert_eq!(admit(&guard, &old.key, Deed::Infer), Err(Denied::Invalid(Invalid::Unknown)));
    let again = guard.again(&access, Deed::Infer).map(|access| access.who());
    assert_eq!(again, Err(Denied::Invalid(Invalid::Unknown)));

    write(&path, &[&old]);
    guard.reload();
    assert!(admit(&guard, &old.key, Deed::Infer).is_ok());
}

#[test]
fn nothing_of_a_key_is_shown() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("keys.yaml");
    let ci = key("ci", &[Role::Infer]);
    write(&path, &[&ci]);
    let (guard, _) = open(&path, &[]);
    let access = guard.admit(Presented::Key(ci.key.as_bytes()), Deed::Infer).unwrap();
    let digest = Digest::of(ci.key.as_bytes()).to_hex();
    let shown = format!("{guard:?} {access:?} {:?}", Presented::Key(ci.key.as_bytes()));
    assert!(!shown.contains(&ci.key) && !shown.contains(&digest), "{shown}");
}

#[test]
fn a_file_that_cannot_be_used_is_told_by_its_setting() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("keys.yaml");
    let open = || {
        let options =
            Options { keys_file: Some(path.clone()), tokens: None, anonymous: Roles::default() };
        Guard::open(options, EventBus::new(1)).unwrap_err().to_string()
    };
    assert!(open().starts_with("auth.keys_file: "), "{}", open());
    fs::write(&path, [0xff]).unwrap();
    assert!(open().ends_with("it is not UTF-8"), "{}", open());
}
