//! Following: the repository is what is to be served, and what comes, changes or goes is followed.
//!
//! One task decides which model takes a turn. A turn looks at its model, and loads or unloads it; each
//! is a task of its own, so that no model waits for another. A model has one turn at a time.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::error::{ChangeError, LoadError};
use super::followed::{Followed, Found, Turned};
use super::hints::Hints;
use super::manager::ModelLifecycleManager;
use super::names::ModelName;
use crate::causes;

/// How long after a hint the repository is looked at. Changes seldom come alone.
const QUIET: Duration = Duration::from_millis(100);

/// The least time between two looks, whatever is hinted.
const REST: Duration = Duration::from_millis(500);

/// How long the start waits for models of which nothing is there that nobody is writing.
const PATIENCE: Duration = Duration::from_secs(10);

impl ModelLifecycleManager {
    /// Loads what the repository has, and begins to follow it on an interval: what is new or has changed
    /// is loaded once it has settled, and what is gone is unloaded. What an operator has unloaded stays
    /// so, and what is lazy waits for its first request.
    ///
    /// Returns once every model was loaded or could not be; one of which somebody is writing all that there
    /// is is waited for ten seconds.
    ///
    /// # Errors
    /// [`ChangeError::Repository`] when the repository cannot be read. What fails of a model is told by
    /// its report, and tried again when it changes, or after a while where that may help.
    pub async fn follow(&self, interval: Duration) -> Result<(), Arc<ChangeError>> {
        self.begin_to_follow(interval, Notice::None).await
    }

    /// [`ModelLifecycleManager::follow`], and what the source hints at is looked at at once. The
    /// interval is for what it does not notice.
    ///
    /// # Errors
    /// As [`ModelLifecycleManager::follow`].
    pub async fn watch(&self, interval: Duration) -> Result<(), Arc<ChangeError>> {
        self.begin_to_follow(interval, Notice::Deaf).await
    }

    async fn begin_to_follow(
        &self,
        interval: Duration,
        notice: Notice,
    ) -> Result<(), Arc<ChangeError>> {
        let mut follower = Follower::new(self.clone(), interval, notice);
        let closing = &self.core.refusing;
        let Some(begun) = closing.run_until_cancelled(follower.start()).await else {
            return Ok(());
        };
        begun.map_err(Arc::new)?;
        self.core.tasks.spawn(follower.run());
        Ok(())
    }
}

/// Whether the source is asked for hints.
enum Notice {
    /// It is not.
    None,
    /// It is, and has none at the moment.
    Deaf,
    Hints(Hints),
}

impl Notice {
    /// Waits for a hint; `false` when there will be none any more. Cancel safe.
    async fn heard(&mut self) -> bool {
        match self {
            Self::Hints(hints) => hints.heard().await,
            Self::None | Self::Deaf => pending().await,
        }
    }
}

/// A turn that is under way.
type Turn = Pin<Box<dyn Future<Output = (ModelName, Option<Turned>)> + Send>>;

struct Follower {
    manager: ModelLifecycleManager,
    interval: Duration,
    notice: Notice,
    models: BTreeMap<ModelName, Followed>,
    turns: FuturesUnordered<Turn>,
    /// When the repository is looked at without a hint.
    round: Instant,
    /// When it is looked at because of one.
    hinted: Option<Instant>,
    /// When it may be looked at again because of one.
    rested: Instant,
    unreadable: Complaint,
    unheard: Complaint,
}

impl Follower {
    fn new(manager: ModelLifecycleManager, interval: Duration, notice: Notice) -> Self {
        let now = Instant::now();
        Self {
            manager,
            interval,
            notice,
            models: BTreeMap::new(),
            turns: FuturesUnordered::new(),
            round: now,
            hinted: None,
            rested: now,
            unreadable: Complaint::default(),
            unheard: Complaint::default(),
        }
    }

    /// The first round, until something was made of every model.
    async fn start(&mut self) -> Result<(), ChangeError> {
        let until = Instant::now() + PATIENCE;
        self.round().await?;
        let settled = async {
            while self.models.values().any(Followed::is_new) {
                self.step().await;
            }
        };
        // Then only what is being loaded is waited for.
        if timeout_at(until, settled).await.is_err() {
            while self.models.values().any(|model| model.is_new() && model.is_busy()) {
                self.step().await;
            }
        }
        Ok(())
    }

    async fn run(mut self) {
        let closing = self.manager.core.refusing.clone();
        while closing.run_until_cancelled(self.step()).await.is_some() {}
    }

    /// Does the next thing there is to do.
    async fn step(&mut self) {
        let next = self.next();
        tokio::select! {
            Some((name, turned)) = self.turns.next(), if !self.turns.is_empty() => self.end(&name, turned),
            goes_on = self.notice.heard(), if self.hinted.is_none() => self.hear(goes_on),
            () = sleep_until(next) => self.act().await,
        }
    }

    /// When something is to be done by the clock.
    fn next(&self) -> Instant {
        let dues = self.models.values().filter_map(Followed::due);
        dues.chain(self.looks()).fold(self.round, Instant::min)
    }

    /// When the look is that a hint has asked for.
    fn looks(&self) -> Option<Instant> {
        self.hinted.map(|at| at.max(self.rested))
    }

    async fn act(&mut self) {
        let now = Instant::now();
        let looked = if now >= self.round {
            self.round().await
        } else if self.looks().is_some_and(|at| now >= at) {
            self.look().await
        } else {
            self.take_turns(|model| model.due().is_some_and(|due| now >= due));
            return;
        };
        if let Err(refusal) = &looked {
            self.unreadable.tell(causes::of_error(refusal), "the repository cannot be followed");
        } else {
            self.unreadable.withdraw();
        }
    }

    /// Notes a hint, or that there will be none.
    fn hear(&mut self, goes_on: bool) {
        let at = Instant::now() + QUIET;
        if goes_on {
            self.hinted = Some(at);
        } else {
            // The source may be another one by then.
            self.notice = Notice::Deaf;
            self.round = self.round.min(at.max(self.rested));
        }
    }

    /// Looks at the repository by the clock, and asks for hints anew.
    async fn round(&mut self) -> Result<(), ChangeError> {
        self.ask_for_hints().await;
        let looked = self.look().await;
        self.round = Instant::now() + self.interval;
        looked
    }

    async fn ask_for_hints(&mut self) {
        if matches!(self.notice, Notice::None) {
            return;
        }
        let loader = Arc::clone(&self.manager.core.loader);
        let asked = self.manager.core.scans.run("watch", move || loader.source.hints()).await;
        let cause = match asked {
            Ok(Ok(Some(hints))) => {
                if matches!(self.notice, Notice::Deaf) {
                    info!("the repository is watched");
                }
                self.notice = Notice::Hints(hints);
                return self.unheard.withdraw();
            }
            Err(LoadError::ShuttingDown) => return,
            Ok(Ok(None)) => "it gives no notice of changes".to_owned(),
            Ok(Err(refusal)) => causes::of_error(&refusal),
            Err(failure) => causes::of_error(&failure),
        };
        self.notice = Notice::Deaf;
        self.unheard.tell(cause, "the repository cannot be watched, it is polled");
    }

    /// Lets every model take a turn, also those that are no longer there.
    async fn look(&mut self) -> Result<(), ChangeError> {
        let began = Instant::now();
        self.hinted = None;
        if let Notice::Hints(hints) = &mut self.notice {
            hints.catch_up();
        }
        let names = self.manager.available().await;
        let now = Instant::now();
        // Half of the time is left to others, at least.
        self.rested = now + REST.max(now - began);
        for name in names? {
            self.models.entry(name).or_default();
        }
        self.take_turns(|_| true);
        Ok(())
    }

    fn take_turns(&mut self, whose: impl Fn(&Followed) -> bool) {
        let now = Instant::now();
        let models = self.models.iter_mut().filter(|(_, model)| whose(model));
        for (name, model) in models {
            let Some(known) = model.begin(now) else { continue };
            let (manager, own) = (self.manager.clone(), name.clone());
            let turn =
                self.manager.core.tasks.spawn(async move { manager.turn(&own, known).await });
            let name = name.clone();
            self.turns.push(Box::pin(async move { (name, turn.await.ok()) }));
        }
    }

    fn end(&mut self, name: &ModelName, turned: Option<Turned>) {
        let turned = turned.unwrap_or_else(|| {
            error!(model = %name, "a turn of a model that is followed has panicked");
            Turned { found: Found::Same, is_written: false }
        });
        let Some(model) = self.models.get_mut(name) else { return };
        let is_gone = turned.found == Found::Gone;
        model.end(turned, Instant::now(), self.interval);
        // It may have come back while its requests were waited for; then it has another turn.
        if is_gone && model.due().is_none() {
            self.models.remove(name);
        }
    }
}

/// Something that is told once, until it is another.
#[derive(Default)]
struct Complaint(Option<String>);

impl Complaint {
    fn tell(&mut self, cause: String, what: &'static str) {
        if self.0.as_ref() != Some(&cause) {
            warn!(cause, "{what}");
            self.0 = Some(cause);
        }
    }

    fn withdraw(&mut self) {
        self.0 = None;
    }
}
