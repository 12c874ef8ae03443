//! A source, a backend and an observer that do what a test tells them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::{name, version};
use crate::inference::{
    Backend, BackendError, DataType, Dim, Instance, ModelFiles, OpenOptions, OpenedModel,
    PreparedRequest, RunControl, RunError, Signature, Tensor, TensorSpec,
};
use crate::model::{
    AvailableModel, Glance, Hinter, Hints, ModelName, ModelObserver, ModelSettings, ModelSource,
    Outcome, SourceError, UsageReader, VersionId,
};

/// What must happen soon happens long before.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what must happen; a test that would hang fails instead.
#[track_caller]
pub(super) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let at = Location::caller();
    async move {
        let result = timeout(PATIENCE, future).await;
        result.unwrap_or_else(|_| panic!("what {at} waits for does not happen"))
    }
}

/// Where the fakes ask the test what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    List,
    Glance,
    Settings,
    Fetch,
    Digest,
    Open,
    Instantiate,
    Run,
}

/// What goes wrong at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Fail,
    Panic,
    /// Only of [`Step::Fetch`]: the system says that it fails.
    Io,
    /// Only of [`Step::Run`]: it gives no outputs.
    Mute,
    /// Only of [`Step::Run`]: it does not take zeros.
    Divide,
}

/// Holds everybody who comes to it until the test opens it.
#[derive(Default)]
pub(super) struct Door {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: watch::Sender<usize>,
}

impl Door {
    pub(super) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    /// Waits until exactly `count` stand before the door.
    pub(super) async fn has_waiting(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        soon(waiting.wait_for(|now| *now == count)).await.unwrap();
    }

    fn pass(&self) {
        self.waiting.send_modify(|count| *count += 1);
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        self.waiting.send_modify(|count| *count -= 1);
    }
}

/// A model in the fake repository.
pub(super) struct FakeModel {
    /// Each version with its digest.
    pub(super) versions: BTreeMap<u64, String>,
    pub(super) settings: ModelSettings,
    pub(super) signature: Signature,
}

/// What the source and the backend have in common, and what they have done so far.
///
/// A place is named like the thing it belongs to: `a/1` for a version, `a` for a model, nothing for
/// the repository.
#[derive(Default)]
pub(super) struct World {
    models: Mutex<BTreeMap<String, FakeModel>>,
    faults: Mutex<HashMap<(Step, String), Fault>>,
    doors: Mutex<HashMap<(Step, String), Arc<Door>>>,
    taken: Mutex<Vec<(Step, String)>>,
    runs: Mutex<Vec<(String, u64)>>,
    instances: watch::Sender<usize>,
    terminated: watch::Sender<usize>,
    released: watch::Sender<usize>,
    /// Models and versions that somebody is writing.
    unsettled: Mutex<BTreeSet<String>>,
    weights: Mutex<HashMap<String, u64>>,
    /// The end of those who follow; `None` where there are no hints.
    hinter: Mutex<Option<Hinter>>,
    gives_hints: AtomicBool,
}

impl World {
    /// From now on there are hints.
    pub(super) fn give_hints(&self) {
        self.gives_hints.store(true, Ordering::SeqCst);
    }

    /// Says that something may have changed.
    pub(super) fn hint(&self) {
        self.hinter.lock().unwrap().as_ref().expect("somebody has asked for hints").hint();
    }

    /// Ends the hints, until somebody asks for them again.
    pub(super) fn end_hints(&self) {
        self.hinter.lock().unwrap().take();
    }

    /// Somebody writes a model or a version, or does so no longer.
    pub(super) fn write(&self, place: &str, is_written: bool) {
        let mut unsettled = self.unsettled.lock().unwrap();
        if is_written {
            unsettled.insert(place.to_owned())
        } else {
            unsettled.remove(place)
        };
    }

    /// Every version of the model takes so many bytes.
    pub(super) fn weigh(&self, model: &str, bytes: u64) {
        self.weights.lock().unwrap().insert(model.to_owned(), bytes);
    }

    /// Waits until `step` was taken so often at `place`; no event tells that.
    pub(super) async fn has_taken(&self, step: Step, place: &str, times: usize) {
        soon(async {
            while self.times(step, place) < times {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Puts a version into the repository, in place of what was there.
    pub(super) fn put(&self, model: &str, version: u64, digest: &str) {
        self.edit(model, |model| {
            model.versions.insert(version, digest.to_owned());
        });
    }

    /// Puts version 1 of each model there.
    pub(super) fn put_each(&self, models: &[&str]) {
        for model in models {
            self.put(model, 1, "one");
        }
    }

    pub(super) fn edit(&self, model: &str, change: impl FnOnce(&mut FakeModel)) {
        let mut models = self.models.lock().unwrap();
        change(models.entry(model.to_owned()).or_insert_with(|| FakeModel {
            versions: BTreeMap::new(),
            settings: ModelSettings::default(),
            signature: one_number(),
        }));
    }

    pub(super) fn remove(&self, model: &str) {
        self.models.lock().unwrap().remove(model);
    }

    /// From now on, `step` goes wrong at `place`.
    pub(super) fn break_at(&self, step: Step, place: &str, fault: Fault) {
        self.faults.lock().unwrap().insert((step, place.to_owned()), fault);
    }

    /// From now on, `step` goes well at `place`.
    pub(super) fn mend(&self, step: Step, place: &str) {
        self.faults.lock().unwrap().remove(&(step, place.to_owned()));
    }

    pub(super) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// A closed door before `step` at `place`.
    pub(super) fn door(&self, step: Step, place: &str) -> Arc<Door> {
        let door = Arc::new(Door::default());
        self.doors.lock().unwrap().insert((step, place.to_owned()), Arc::clone(&door));
        door
    }

    /// How often `step` was taken at `place`, failures included.
    pub(super) fn times(&self, step: Step, place: &str) -> usize {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(done, at)| *done == step && at == place).count()
    }

    /// The numbers that instances of a version were asked with, warm-ups (0) left out.
    pub(super) fn asked(&self, place: &str) -> Vec<u64> {
        let runs = self.runs.lock().unwrap();
        runs.iter().filter(|(at, number)| at == place && *number != 0).map(|run| run.1).collect()
    }

    /// Instances that exist.
    pub(super) fn instances(&self) -> usize {
        *self.instances.borrow()
    }

    /// How often memory was given back to the system.
    pub(super) fn released(&self) -> usize {
        *self.released.borrow()
    }

    /// Waits until memory was given back so often.
    pub(super) async fn has_released(&self, count: usize) {
        soon(self.released.subscribe().wait_for(|now| *now >= count)).await.unwrap();
    }

    /// Waits until so many runs were interrupted.
    pub(super) async fn has_terminated(&self, count: usize) {
        soon(self.terminated.subscribe().wait_for(|now| *now >= count)).await.unwrap();
    }

    fn take(&self, step: Step, place: &str) -> Result<(), String> {
        let key = (step, place.to_owned());
        self.taken.lock().unwrap().push(key.clone());
        let door = self.doors.lock().unwrap().get(&key).cloned();
        door.inspect(|door| door.pass());
        let fault = self.faults.lock().unwrap().get(&key).copied();
        match fault {
            Some(Fault::Fail | Fault::Io) => Err(format!("{step:?} of {place} fails")),
            Some(Fault::Panic) => panic!("{step:?} of {place} panics"),
            Some(Fault::Mute | Fault::Divide) | None => Ok(()),
        }
    }

    fn has_fault(&self, step: Step, place: &str, fault: Fault) -> bool {
        self.faults.lock().unwrap().get(&(step, place.to_owned())) == Some(&fault)
    }
}

/// One number in, the version's number out.
fn one_number() -> Signature {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Uint64,
        shape: Some(vec![Dim::Dynamic(String::new())]),
        optional: false,
    };
    Signature { inputs: vec![spec("x")], outputs: vec![spec("y")] }
}

fn place_of(files: &ModelFiles) -> String {
    files.graph.display().to_string()
}

fn broken(problem: String) -> SourceError {
    SourceError::Invalid { what: "fake".to_owned(), problem }
}

impl ModelSource for World {
    fn list(&self) -> Result<Vec<AvailableModel>, SourceError> {
        self.take(Step::List, "").map_err(broken)?;
        let names: Vec<String> = self.models.lock().unwrap().keys().cloned().collect();
        names.iter().map(|model| self.model(&name(model))).collect()
    }

    fn model(&self, name: &ModelName) -> Result<AvailableModel, SourceError> {
        let models = self.models.lock().unwrap();
        let unknown = || SourceError::UnknownModel(name.clone());
        let model = models.get(name.as_str()).ok_or_else(unknown)?;
        let versions = model.versions.keys().map(|number| version(*number)).collect();
        Ok(AvailableModel { name: name.clone(), versions })
    }

    fn settings(&self, name: &ModelName) -> Result<ModelSettings, SourceError> {
        self.take(Step::Settings, name.as_str()).map_err(broken)?;
        let models = self.models.lock().unwrap();
        let unknown = || SourceError::UnknownModel(name.clone());
        models.get(name.as_str()).map(|model| model.settings.clone()).ok_or_else(unknown)
    }

    fn fetch(&self, id: &VersionId) -> Result<ModelFiles, SourceError> {
        let place = id.to_string();
        let is_of_system = self.has_fault(Step::Fetch, &place, Fault::Io);
        let of_system = |problem: String| {
            if is_of_system {
                SourceError::Io { what: problem, source: ErrorKind::Interrupted.into() }
            } else {
                broken(problem)
            }
        };
        self.take(Step::Fetch, &place).map_err(of_system)?;
        if self.model(&id.model)?.versions.contains(&id.version) {
            return Ok(ModelFiles::at(PathBuf::from(id.to_string())));
        }
        Err(SourceError::UnknownVersion(id.clone()))
    }

    fn hints(&self) -> Result<Option<Hints>, SourceError> {
        if !self.gives_hints.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let mut hinter = self.hinter.lock().unwrap();
        Ok(Some(hinter.get_or_insert_default().hints()))
    }

    fn glance(&self, name: &ModelName) -> Result<Glance, SourceError> {
        self.take(Step::Glance, name.as_str()).map_err(broken)?;
        let (written, models) = (self.unsettled.lock().unwrap(), self.models.lock().unwrap());
        let unknown = || SourceError::UnknownModel(name.clone());
        let FakeModel { versions, settings, .. } = models.get(name.as_str()).ok_or_else(unknown)?;
        let all = written.contains(name.as_str());
        let (unsettled, settled): (BTreeMap<_, _>, BTreeMap<_, _>) = versions
            .iter()
            .partition(|(number, _)| all || written.contains(&format!("{name}/{number}")));
        Ok(Glance {
            settled: !all && (!settled.is_empty() || versions.is_empty()),
            unsettled: unsettled.into_keys().map(|number| version(*number)).collect(),
            stamp: format!("{settled:?} {settings:?}"),
        })
    }

    fn digest(&self, files: &ModelFiles) -> Result<String, SourceError> {
        let place = place_of(files);
        self.take(Step::Digest, &place).map_err(broken)?;
        let (model, number) = place.split_once('/').unwrap();
        let models = self.models.lock().unwrap();
        let digest =
            models.get(model).and_then(|model| model.versions.get(&number.parse().unwrap()));
        digest.cloned().ok_or_else(|| broken("it was taken away".to_owned()))
    }

    fn size(&self, files: &ModelFiles) -> Result<u64, SourceError> {
        let place = place_of(files);
        let (model, _) = place.split_once('/').unwrap();
        Ok(self.weights.lock().unwrap().get(model).copied().unwrap_or_default())
    }
}

/// Runs what the world has.
pub(super) struct FakeBackend(pub(super) Arc<World>);

struct FakeOpened {
    world: Arc<World>,
    place: String,
    signature: Signature,
}

struct FakeInstance {
    world: Arc<World>,
    place: String,
}

impl Backend for FakeBackend {
    fn platform(&self) -> &'static str {
        "fake"
    }

    fn open(
        &self,
        files: &ModelFiles,
        _: OpenOptions,
    ) -> Result<Box<dyn OpenedModel>, BackendError> {
        let (world, place) = (Arc::clone(&self.0), place_of(files));
        world.take(Step::Open, &place).map_err(BackendError::Rejected)?;
        let (model, _) = place.split_once('/').unwrap();
        let signature = world.models.lock().unwrap()[model].signature.clone();
        Ok(Box::new(FakeOpened { world, place, signature }))
    }

    fn released(&self) {
        self.0.released.send_modify(|count| *count += 1);
    }
}

impl OpenedModel for FakeOpened {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instantiate(&mut self) -> Result<Box<dyn Instance>, BackendError> {
        self.world.take(Step::Instantiate, &self.place).map_err(BackendError::Rejected)?;
        self.world.instances.send_modify(|count| *count += 1);
        Ok(Box::new(FakeInstance { world: Arc::clone(&self.world), place: self.place.clone() }))
    }
}

impl Instance for FakeInstance {
    fn run(
        &mut self,
        request: &PreparedRequest,
        control: &RunControl,
    ) -> Result<Vec<Tensor>, RunError> {
        let input = request.inputs().first().and_then(Option::as_ref);
        let number = input.and_then(|tensor| tensor.as_slice::<u64>()?.first().copied());
        self.world.runs.lock().unwrap().push((self.place.clone(), number.unwrap_or(0)));
        let world = Arc::clone(&self.world);
        let armed = control.arm(Arc::new(move || {
            world.terminated.send_modify(|count| *count += 1);
        }));
        self.world.take(Step::Run, &self.place).map_err(RunError::Engine)?;
        drop(armed);
        if control.is_cancelled() {
            return Err(RunError::Cancelled);
        }
        if number == Some(0) && self.world.has_fault(Step::Run, &self.place, Fault::Divide) {
            return Err(RunError::Rejected("division by zero".to_owned()));
        }
        if self.world.has_fault(Step::Run, &self.place, Fault::Mute) {
            return Ok(Vec::new());
        }
        let (_, version) = self.place.split_once('/').unwrap();
        let answer = Tensor::from_vec(vec![1], vec![version.parse::<u64>().unwrap()]).unwrap();
        Ok(vec![answer; request.outputs().len()])
    }
}

impl Drop for FakeInstance {
    fn drop(&mut self) {
        self.world.instances.send_modify(|count| *count -= 1);
    }
}

/// Remembers how requests ended, and which versions are observed.
pub(super) struct FakeObserver(pub(super) Arc<Observed>);

#[derive(Default)]
pub(super) struct Observed {
    usages: Mutex<Vec<UsageReader>>,
    pub(super) versions: AtomicUsize,
}

impl Observed {
    /// How the requests of all versions ended that there ever were, in the order of [`Outcome::ALL`].
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        let usages = self.usages.lock().unwrap();
        let counts: Vec<_> = usages.iter().map(|usage| usage.read().outcomes).collect();
        let count = |outcome: Outcome| {
            counts.iter().flatten().map(|counts| counts[outcome as usize]).sum::<u64>()
        };
        let times =
            |outcome| std::iter::repeat_n(outcome, usize::try_from(count(outcome)).unwrap());
        Outcome::ALL.into_iter().flat_map(times).collect()
    }
}

struct OfVersion(Arc<Observed>);

impl ModelObserver for FakeObserver {
    fn version(&self, _: &VersionId, usage: UsageReader) -> crate::model::Observed {
        self.0.versions.fetch_add(1, Ordering::SeqCst);
        self.0.usages.lock().unwrap().push(usage);
        Box::new(OfVersion(Arc::clone(&self.0)))
    }
}

impl Drop for OfVersion {
    fn drop(&mut self) {
        self.0.versions.fetch_sub(1, Ordering::SeqCst);
    }
}
