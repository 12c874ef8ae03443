use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::names::{Described, GROUPS, TRITON};
use super::*;
use crate::lifecycle::{AppState, Event};

fn all() -> impl Iterator<Item = &'static Described> {
    GROUPS.into_iter().flat_map(|(_, names)| names).chain(TRITON)
}

#[test]
fn names_are_unique_and_have_their_labels_in_order() {
    let names: BTreeSet<&str> = all().map(|name| name.name).collect();
    assert_eq!(names.len(), all().count());
    for name in all() {
        assert!(name.labels.is_sorted(), "{}", name.name);
        assert!(name.help.ends_with('.') && !name.help.contains(['|', '\n']), "{}", name.name);
    }
}

#[test]
fn the_guide_has_every_metric() {
    let table = |names: &[Described]| {
        let mut table = "| Name | Type | Labels | Meaning |\n|---|---|---|---|\n".to_owned();
        for Described { name, kind, labels, help } in names {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let row = format!("| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", "));
            writeln!(table, "{}", row.replace("|  |", "| |")).unwrap();
        }
        table
    };
    let guide = include_str!("../../docs/metrics.md");
    let triton = ("Triton's names", TRITON);
    for (title, names) in GROUPS.into_iter().chain([triton]) {
        let section = format!("### {title}\n\n{}", table(names));
        assert!(guide.contains(&section), "docs/metrics.md has to have this:\n\n{section}");
    }
}

fn moved(from: &'static str, to: &'static str) -> Event {
    let (model, detail) = ("m".to_owned(), String::new());
    Event::ModelVersion { model, version: 1, from, to, detail }
}

fn ended(operation: &'static str, state: &'static str) -> Event {
    let (model, id, detail) = ("m".to_owned(), String::new(), String::new());
    Event::Operation { id, operation, model, state, origin: None, detail }
}

fn decided(decision: &'static str) -> Event {
    let (model, figures) = ("m".to_owned(), String::new());
    Event::ModelDecision { model, version: 1, decision, figures }
}

#[test]
fn events_are_counted_by_what_they_mean() {
    let events = EventCounts::default();
    for event in [
        Event::Application { from: AppState::Ready, to: AppState::Starting, reason: String::new() },
        moved("WARMING", "READY"),
        moved("READY", "DRAINING"),
        moved("LOADING", "FAILED"),
        ended("swap", "begun"),
        ended("swap", "succeeded"),
        ended("rollback", "failed"),
        decided("step passed"),
        decided("rolled back"),
    ] {
        events.count(&event);
    }
    events.miss(3);
    let text = TextEncoder::new().encode_to_string(&events.gather()).unwrap();
    for line in [
        "onward_application_transitions_total{to=\"STARTING\"} 1",
        "onward_model_loads_total{model=\"m\",result=\"success\"} 1",
        "onward_model_loads_total{model=\"m\",result=\"failure\"} 1",
        "onward_model_operations_total{operation=\"swap\",result=\"succeeded\"} 1",
        "onward_model_operations_total{operation=\"rollback\",result=\"failed\"} 1",
        "onward_model_swaps_total{model=\"m\"} 1",
        "onward_model_rollbacks_total{cause=\"manual\",model=\"m\"} 0",
        "onward_model_rollbacks_total{cause=\"canary\",model=\"m\"} 1",
        "onward_model_decisions_total{decision=\"step_passed\",model=\"m\"} 1",
        "onward_model_evictions_total{model=\"m\"} 0",
        "onward_metrics_events_missed_total 3",
    ] {
        assert!(text.lines().any(|have| have == line), "no {line} in\n{text}");
    }
    assert!(!text.contains("begun"), "{text}");
    events.forget(&BTreeSet::from(["n".to_owned()]));
    assert_eq!(TextEncoder::new().encode_to_string(&events.gather()).unwrap(), text);
    events.forget(&events.models());
    let text = TextEncoder::new().encode_to_string(&events.gather()).unwrap();
    assert!(!text.contains("model=") && text.contains("operation=\"swap\""), "{text}");
}
