//! Traces of what is changed, and the end of what sends them.

use std::convert::Infallible;

use crate::lifecycle::{Application, Event, EventKind, Hook};
use crate::model::{ModelLifecycleManager, OperationReport, StateKind, Step, Version};
use crate::telemetry::Exporter;
use crate::trail::{Change, Phase, Recorder};

/// The states in which nothing is done with a version any more.
const ENDS: [StateKind; 3] = [StateKind::Ready, StateKind::Unloaded, StateKind::Failed];

/// Has changes of models recorded once they have ended, and at the end of the server sent what there is. Nothing
/// where spans are not sent.
pub(super) fn register(
    application: &Application,
    models: &ModelLifecycleManager,
    (recorder, exporter): (&Recorder, Option<Exporter>),
) {
    let Some(exporter) = exporter else { return };
    let (models, recorder) = (models.clone(), recorder.clone());
    let hook = Hook::new("traces", move |record| {
        if let Event::Operation { id, state, detail, .. } = &record.event
            && *state != "begun"
            && let Some(operation) = models.operation(id)
        {
            let failure = (*state != "succeeded").then(|| format!("{state} {detail}"));
            if let Some(change) = change(operation.report(), failure) {
                recorder.record_change(change);
            }
        }
        std::future::ready(Ok::<_, Infallible>(()))
    });
    application.hooks().register(hook.kinds([EventKind::Operation]));
    application.on_drain("traces", move |deadline| async move {
        exporter.finish(deadline).await;
        // Spans that nobody takes make no end of the server unclean.
        Ok(())
    });
}

fn change(report: OperationReport, failure: Option<String>) -> Option<Change> {
    let (ended, _) = report.end?;
    Some(Change {
        id: report.id,
        operation: report.kind.name(),
        model: report.model.to_string(),
        origin: report.origin,
        time: (report.started, ended),
        phases: report.steps.into_iter().map(phase).collect(),
        failure,
    })
}

fn phase(step: Step) -> Phase {
    let is_end = ENDS.iter().any(|end| end.name() == step.what);
    let version = step.version.map(Version::number);
    Phase { what: step.what, version, began: step.at, is_end }
}
