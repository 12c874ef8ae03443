//! The file of keys, as it changes.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onward::auth::Role;
use reqwest::Method;

use super::{Keys, Who, ask, guarded, new_key};
use crate::support::grpc::{Stream, connect, x as grpc_x};
use crate::support::{Server, x};

#[tokio::test]
async fn keys_change_under_load_and_nobody_else_notices() {
    let keys = Keys::new();
    let server = Arc::new(guarded(&keys, &[]).await);
    let stop = Arc::new(AtomicBool::new(false));
    let body = x(&[1, 4], &[0.0; 4]).to_string();
    let load = || {
        let (server, stop, body) = (Arc::clone(&server), Arc::clone(&stop), body.clone());
        let key = keys.of(Who::Infer).unwrap().to_owned();
        tokio::spawn(async move {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                let place = (Method::POST, "/v2/models/own/infer");
                let answer = ask(&server, Some(&key), place, &body).await;
                assert_eq!(answer.status(), 200);
                answered += 1;
            }
            answered
        })
    };
    let loads: Vec<_> = (0..4).map(|_| load()).collect();

    let original = fs::read_to_string(keys.path()).unwrap();
    let guest = new_key("guest", Role::Infer, &[]);
    let visit = async || {
        let answer = ask(&server, Some(&guest.key), (Method::GET, "/v2/models/own"), "").await;
        answer.status().as_u16()
    };
    assert_eq!(visit().await, 401);
    fs::write(keys.path(), format!("{original}{}", guest.entry)).unwrap();
    server.process.logged(&["configuration read anew", "auth.keys_file"]).await;
    assert_eq!(visit().await, 200);
    // One that is broken, and one that is gone, change nothing.
    fs::write(keys.path(), format!("{original}  - name: {}\n", guest.key)).unwrap();
    let line = server.process.logged(&["the configuration stays as it is", "auth.keys_file"]).await;
    assert!(line.contains("what was read before holds on") && !line.contains(&guest.key), "{line}");
    assert_eq!(visit().await, 200);
    fs::remove_file(keys.path()).unwrap();
    server.process.logged(&["the configuration stays as it is", "No such file"]).await;
    assert_eq!(visit().await, 200);
    fs::write(keys.path(), &original).unwrap();
    server.process.signal("HUP");
    server.process.logged(&["configuration read anew", "\"changed\":\"\""]).await;
    while visit().await == 200 {}
    assert_eq!(visit().await, 401);

    stop.store(true, Ordering::Relaxed);
    for load in loads {
        assert!(load.await.unwrap() > 0);
    }
}

/// A server, and a stream of inferences that has had an answer.
async fn streaming(keys: &Keys) -> (Server, Stream) {
    let server = guarded(keys, &[]).await;
    let mut client = connect(server.address).await;
    let mut stream = Stream::open_with(&mut client, keys.of(Who::Infer)).await;
    stream.send("1", grpc_x("own", &[1, 4], &[0.0; 4]));
    assert_eq!(stream.answers.message().await.unwrap().unwrap().error_message, "");
    (server, stream)
}

#[tokio::test]
async fn a_stream_ends_with_its_key() {
    let keys = Keys::new();
    let (server, mut stream) = streaming(&keys).await;
    fs::write(keys.path(), "keys: []").unwrap();
    server.process.logged(&["configuration read anew", "auth.keys_file"]).await;
    stream.send("2", grpc_x("own", &[1, 4], &[0.0; 4]));
    let answer = stream.answers.message().await.unwrap().unwrap();
    assert!(answer.error_message.contains("not known"), "{answer:?}");
    let line = server.process.logged(&["onward::audit", "denied", "ModelStreamInfer"]).await;
    assert!(line.contains("\"who\":\"key:Infer\""), "{line}");
}

#[tokio::test]
async fn a_stream_ends_with_the_role_of_its_key() {
    let keys = Keys::new();
    let (server, mut stream) = streaming(&keys).await;
    let fewer = fs::read_to_string(keys.path()).unwrap().replace("[infer]", "[read]");
    fs::write(keys.path(), fewer).unwrap();
    server.process.logged(&["configuration read anew", "auth.keys_file"]).await;
    stream.send("2", grpc_x("own", &[1, 4], &[0.0; 4]));
    let answer = stream.answers.message().await.unwrap().unwrap();
    assert!(answer.error_message.contains("needs the role infer"), "{answer:?}");
}
