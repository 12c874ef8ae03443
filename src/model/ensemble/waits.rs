//! Which ensembles wait for which models while they are loaded, so that none waits for itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::names::ModelName;

/// Each ensemble that is being loaded with a model that it waits for.
#[derive(Debug, Default)]
pub(in super::super) struct Waits(Mutex<Vec<(ModelName, ModelName)>>);

/// An ensemble waits for a model as long as this is there.
#[must_use]
pub(super) struct Waiting<'a> {
    waits: &'a Waits,
    wait: (ModelName, ModelName),
}

impl Waits {
    /// Notes that an ensemble waits for the model of a step.
    ///
    /// # Errors
    /// The models that would wait for each other, from the ensemble over the step and back to it.
    pub(super) fn begin(
        &self,
        ensemble: &ModelName,
        step: &ModelName,
    ) -> Result<Waiting<'_>, Vec<ModelName>> {
        let mut waits = self.waits();
        if let Some(way) = way(&waits, step, ensemble) {
            return Err(std::iter::once(ensemble.clone()).chain(way).collect());
        }
        let wait = (ensemble.clone(), step.clone());
        waits.push(wait.clone());
        Ok(Waiting { waits: self, wait })
    }

    /// Whether an ensemble that is being loaded is about to take a version of the model.
    pub(in super::super) fn has(&self, model: &ModelName) -> bool {
        self.waits().iter().any(|(_, step)| step == model)
    }

    fn waits(&self) -> MutexGuard<'_, Vec<(ModelName, ModelName)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waits = self.waits.waits();
        if let Some(place) = waits.iter().position(|wait| *wait == self.wait) {
            waits.swap_remove(place);
        }
    }
}

/// Over whom `from` waits for `to`, both included. There is no way twice through the same, as no circle is
/// ever noted.
fn way(
    waits: &[(ModelName, ModelName)],
    from: &ModelName,
    to: &ModelName,
) -> Option<Vec<ModelName>> {
    if from == to {
        return Some(vec![to.clone()]);
    }
    let next = waits.iter().filter(|(ensemble, _)| ensemble == from);
    let mut ways = next.filter_map(|(_, step)| way(waits, step, to));
    ways.next().map(|way| std::iter::once(from.clone()).chain(way).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_wait_for_itself_is_told_over_whom() {
        let waits = Waits::default();
        let name = |name: &str| ModelName::new(name).unwrap();
        let begin = |ensemble: &str, step: &str| waits.begin(&name(ensemble), &name(step));
        let itself = begin("a", "a").map(drop);
        assert_eq!(itself, Err(vec![name("a"), name("a")]));
        let (_first, second) = (begin("a", "b").unwrap(), begin("b", "c").unwrap());
        let _again = begin("a", "b").unwrap();
        assert!(waits.has(&name("c")) && !waits.has(&name("a")));
        let circle = begin("c", "a").map(drop);
        assert_eq!(circle, Err(["c", "a", "b", "c"].map(name).to_vec()));
        drop(second);
        assert!(begin("c", "a").is_ok());
    }
}
