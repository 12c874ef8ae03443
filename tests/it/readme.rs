//! The commands of the README and of the guide to models do what they say.

use std::process::Command;

use crate::support::process::blocking;
use crate::support::samples::samples;
use crate::support::{Server, project, text};

/// Commands that are no client's: `make serve` is checked by `.ci/run`.
const OF_THE_SHELL: [&str; 1] = ["make serve"];

/// A page's commands, block by block.
fn blocks(page: &str) -> Vec<String> {
    let page = text(page);
    let after_fences = page.split("```sh\n").skip(1);
    after_fences.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Runs a block in the project's root, against the server at `address`; what it prints.
fn run(block: &str, address: &str) -> String {
    let script = block.replace("127.0.0.1:8000", address);
    let output = Command::new("bash")
        .args(["-u", "-c", &script])
        .current_dir(project(""))
        .env("no_proxy", "127.0.0.1")
        .output()
        .expect("there is a bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\nfailed: {said}{complaint}");
    said
}

#[tokio::test]
async fn every_command_works() {
    let server = Server::start(samples()).await;
    let address = server.address.to_string();
    let commands =
        blocks("README.md").into_iter().filter(|block| !OF_THE_SHELL.contains(&block.trim()));
    let mut said = Vec::new();
    for block in commands {
        let address = address.clone();
        said.push(blocking(move || run(&block, &address)).await);
    }
    let [classified, swapped, report, back, load, index, compressed] = said.as_slice() else {
        panic!("README.md has other commands than this test knows: {said:#?}");
    };
    assert!(
        classified.contains("\"name\":\"label\",\"datatype\":\"INT64\",\"shape\":[1],\"data\":[7]")
    );
    assert!(swapped.contains("\"from\":\"1\",\"to\":\"2\""), "{swapped}");
    let counts: Vec<u32> = swapped
        .lines()
        .last()
        .unwrap()
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    let [1, first, 2, second, failed] = counts[..] else { panic!("{swapped}") };
    assert!(first > 0 && second > 0, "{swapped}");
    assert_eq!(failed, 0, "{swapped}");
    assert!(report.contains("\"current_version\":\"2\""), "{report}");
    assert!(back.contains("\"from\":\"2\",\"to\":\"1\""), "{back}");
    assert_eq!(load, "");
    assert!(compressed.contains("\"data\":[7]"), "{compressed}");
    assert!(index.contains("\"name\":\"digits\",\"version\":\"1\",\"state\":\"READY\""), "{index}");
}

#[tokio::test]
async fn the_guide_to_models_can_be_followed() {
    let server = Server::start_with(samples(), &[("models.keep_previous", "5m")]).await;
    let address = server.address.to_string();
    let mut said = Vec::new();
    for block in blocks("docs/models.md") {
        let address = address.clone();
        said.push(blocking(move || run(&block, &address)).await);
    }
    let expected = [
        "\"current_version\":\"1\"",
        "held-out.npz",
        "\"to\":\"2\"",
        "\"to\":\"1\"",
        "too few requests",
        "rolled back",
        "\"model_version\":\"1\"",
        "\"weights\":{}",
        "\"shadow\":null",
        "\"operation\":\"load\"",
        "\"actions\":[",
        "it is leased by nightly job",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "no {expected} in {said}");
        assert!(!said.contains("\"code\":\"invalid") && !said.contains("not_found"), "{said}");
    }
}
