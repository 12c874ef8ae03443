//! Trials of a new version: a canary, which gets more and more of the requests, and the bake after a
//! flip. Both end by themselves, for it or against it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::change::{Core, Lineup, Next, Warm, Wish};
use super::error::ChangeError;
use super::handle::Serving;
use super::history::Cause;
use super::intent::{Choice, ShadowTarget};
use super::judge::{Evidence, Limits, Verdict};
use super::mirror::{Mirror, MirrorTally};
use super::names::{Version, VersionId};
use super::operation::Operation;
use super::registry::ModelEntry;
use super::serving_map::Routes;
use super::swap::is_wanted;
use super::traffic::{WHOLE, Weights};
use super::usage::Tally;
use crate::lifecycle::Event;

/// The longest and the shortest time between two looks at the evidence.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How a canary goes.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryPlan {
    /// The shares of the requests that the new version gets one after the other, in hundredths of a
    /// percent.
    pub steps: Vec<u32>,
    /// How long each step lasts at least.
    pub interval: Duration,
    /// How long each step waits for enough requests; then the new version is taken back.
    pub patience: Duration,
    /// The share of the requests that are copied from the old version to the new one and compared, in
    /// hundredths of a percent.
    pub compare: u32,
    /// What the new version may do worse.
    pub limits: Limits,
}

impl Default for CanaryPlan {
    fn default() -> Self {
        Self {
            steps: vec![100, 500, 2_500, 5_000],
            interval: Duration::from_mins(1),
            patience: Duration::from_hours(1),
            compare: 1_000,
            limits: Limits::default(),
        }
    }
}

impl CanaryPlan {
    /// # Errors
    /// [`ChangeError::Plan`] where the steps do not lead upwards.
    pub(super) fn check(&self) -> Result<(), ChangeError> {
        let upwards = self.steps.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = self.steps.iter().all(|share| (1..=WHOLE).contains(share));
        if self.steps.is_empty() || !upwards || !inside {
            let text = "canary.steps: expected percentages that lead upwards, 100 at most";
            return Err(ChangeError::Plan(text.to_owned()));
        }
        Ok(())
    }
}

/// How a flip is watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bake {
    /// For how long.
    pub time: Duration,
    /// What the new version may do worse than the old one did.
    pub limits: Limits,
}

/// How requests are routed while a trial goes on, whatever operators have decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrialRules {
    /// `None` where the current version gets all requests.
    pub(super) weights: Option<Weights>,
    pub(super) shadow: Option<ShadowTarget>,
}

impl TrialRules {
    pub(super) fn all_to_the_current() -> Self {
        Self { weights: None, shadow: None }
    }
}

/// A trial that goes on.
#[derive(Debug, Clone)]
pub(super) struct OnTrial {
    /// What tries the new version out.
    pub(super) operation: Arc<Operation>,
    pub(super) new: Version,
    /// What is current again when the new version is taken back.
    pub(super) old: Version,
}

impl OnTrial {
    pub(super) fn new(wish: Wish<'_>, old: &Routes) -> Self {
        Self { operation: Arc::clone(wish.operation), new: wish.version, old: old.current }
    }
}

/// Two versions side by side since some moment.
pub(super) struct Contest {
    pub(super) new: Arc<Serving>,
    pub(super) old: Arc<Serving>,
    new_before: Tally,
    old_before: Tally,
}

/// Who is on trial, and what watches.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    pub(super) entry: &'a ModelEntry,
    pub(super) operation: &'a Operation,
    pub(super) limits: &'a Limits,
}

impl Contest {
    pub(super) fn begin(new: &Arc<Serving>, old: &Arc<Serving>) -> Self {
        let (new_before, old_before) = (new.usage.tally(), old.usage.tally());
        Self { new: Arc::clone(new), old: Arc::clone(old), new_before, old_before }
    }

    /// A contest with all that the old version has ever done.
    pub(super) fn with_the_past(new: &Arc<Serving>, old: &Arc<Serving>) -> Self {
        Self { old_before: Tally::default(), ..Self::begin(new, old) }
    }

    fn evidence(&self, mirror: Option<&Mirror>) -> Evidence {
        Evidence {
            new: self.new.usage.tally().since(&self.new_before),
            old: self.old.usage.tally().since(&self.old_before),
            mirrored: mirror.map_or_else(MirrorTally::default, Mirror::tally),
        }
    }
}

impl Core {
    /// Decides that the old version is current until the new one has proved itself. So it is also in the
    /// next life, where the process ends before, and after a verdict against the new one: that is the
    /// newest then, but not what a load selects.
    pub(super) async fn open_trial(&self, entry: &ModelEntry, old: Version, new: Version) {
        entry.newest(new);
        let newest = entry.newest(old);
        entry.decide(|intent| intent.chosen = Some(Choice { version: old, newest }));
        // Where it cannot be kept, a check tells so.
        self.keep().await.ok();
    }

    /// Gives a warm version more and more of the requests, step by step, until nothing speaks against
    /// it. The routes are as before if something does.
    pub(super) async fn canary(
        self: &Arc<Self>,
        watch: Watch<'_>,
        plan: &CanaryPlan,
        (to, mut fresh): (&Arc<Serving>, Vec<Warm>),
    ) -> Result<(), ChangeError> {
        let routes = self.routes_of(&watch.entry.name)?;
        let old = Arc::clone(&routes.versions[&routes.current]);
        let mut lineup = Lineup::of(&routes);
        lineup.versions.insert(to.id.version, Arc::clone(to));
        let contest = Contest::begin(to, &old);
        for share in &plan.steps {
            let weights = Weights::between((to.id.version, *share), old.id.version);
            let shadow = ShadowTarget { version: to.id.version, share: plan.compare };
            let shadow = (plan.compare > 0).then_some(shadow);
            watch.entry.set_trial(Some(TrialRules { weights: Some(weights), shadow }));
            let next = Next::lineup(lineup.clone(), Cause::Swap);
            self.publish(watch.entry, next.with(std::mem::take(&mut fresh)));
            let what = format!("CANARY {}.{:02}%", share / 100, share % 100);
            watch.operation.step(what, Some(to.id.version));
            if let Err(error) = self.step(watch, plan, &contest).await {
                self.take_back(watch.entry, to).await;
                return Err(error);
            }
        }
        self.tell(&to.id, "promoted", &contest.evidence(None).to_string());
        Ok(())
    }

    /// One step of a canary: at least its interval, and until enough was seen.
    async fn step(
        &self,
        watch: Watch<'_>,
        plan: &CanaryPlan,
        contest: &Contest,
    ) -> Result<(), ChangeError> {
        let (began, id) = (Instant::now(), &contest.new.id);
        let step = Contest::begin(&contest.new, &contest.old);
        loop {
            self.pause(watch, plan.interval).await?;
            let routes = self.serving.routes(&watch.entry.name);
            let mirror = routes.as_ref().and_then(|routes| routes.mirror.as_deref());
            let (whole, here) = (contest.evidence(mirror), step.evidence(None));
            let (time, figures) = (began.elapsed(), whole.to_string());
            // The whole trial may speak against it; this step alone speaks for it.
            let reason = match (whole.judge(watch.limits), here.judge(watch.limits)) {
                (Verdict::Bad(reason), _) => reason,
                (_, Verdict::Good) if time >= plan.interval => {
                    self.tell(id, "step passed", &figures);
                    return Ok(());
                }
                (_, Verdict::Undecided) if time >= plan.interval.max(plan.patience) => {
                    too_few(&here, watch.limits, time)
                }
                _ => continue,
            };
            self.tell(id, "rolled back", &format!("{reason}; {figures}"));
            return Err(ChangeError::RolledBack { id: id.clone(), reason });
        }
    }

    /// Watches a version that is current.
    ///
    /// # Errors
    /// Why it is to be taken back: [`ChangeError::RolledBack`], or [`ChangeError::Cancelled`]; and
    /// [`ChangeError::ShuttingDown`], which is no verdict.
    pub(super) async fn bake(
        &self,
        watch: Watch<'_>,
        bake: &Bake,
        contest: &Contest,
    ) -> Result<(), ChangeError> {
        let (began, id) = (Instant::now(), &contest.new.id);
        while began.elapsed() < bake.time {
            self.pause(watch, bake.time.saturating_sub(began.elapsed())).await?;
            let evidence = contest.evidence(None);
            if let Verdict::Bad(reason) = evidence.judge(watch.limits) {
                self.tell(id, "rolled back", &format!("{reason}; {evidence}"));
                return Err(ChangeError::RolledBack { id: id.clone(), reason });
            }
        }
        self.tell(id, "baked", &contest.evidence(None).to_string());
        Ok(())
    }

    /// Waits until the next look, a part of `whole`.
    async fn pause(&self, watch: Watch<'_>, whole: Duration) -> Result<(), ChangeError> {
        let time = (whole / 20).clamp(LOOKS.0, LOOKS.1);
        tokio::select! {
            () = sleep(time) => Ok(()),
            () = watch.operation.cancelled() => watch.operation.goes_on(),
            () = self.closing.cancelled() => Err(ChangeError::ShuttingDown),
        }
    }

    /// Ends a trial against the new version: its requests finish, and then it is unloaded.
    pub(super) async fn take_back(self: &Arc<Self>, entry: &ModelEntry, new: &Serving) {
        entry.set_trial(None);
        let Some(routes) = self.serving.routes(&entry.name) else { return };
        let mut lineup = Lineup::of(&routes);
        if !is_wanted(entry, new.id.version) {
            lineup.versions.remove(&new.id.version);
        }
        let retired = self.publish(entry, Next::lineup(lineup, Cause::RolledBackByItself));
        self.retire_within(retired, self.drain_timeout()).await;
    }

    pub(super) fn tell(&self, id: &VersionId, decision: &'static str, figures: &str) {
        self.events.publish(Event::ModelDecision {
            model: id.model.to_string(),
            version: id.version.number(),
            decision,
            figures: figures.to_owned(),
        });
    }
}

fn too_few(evidence: &Evidence, limits: &Limits, time: Duration) -> String {
    format!("too few requests: {} of {} in {time:.0?}", evidence.new.judged, limits.min_requests)
}
