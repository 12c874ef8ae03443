//! A closed-loop HTTP/1.1 load client that costs little next to the server under test.
//!
//! The request is built once, connections are kept alive, and an answer is gone when the next comes.
//! Requests are never pipelined. An answer must state its `Content-Length`: a chunked one is an error.

#![allow(dead_code, reason = "each benchmark takes its pick")]

mod head;
mod http;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

#[allow(unused_imports, reason = "each benchmark takes its pick")]
pub(crate) use http::{Judge, Target, ask, get, post, post_json, request};

use http::HttpLine;

/// Requests that each connection makes before the clock starts, if that takes no more than this share of
/// the time.
const WARM_UP_REQUESTS: u64 = 16;
const WARM_UP_SHARE: u32 = 2;

/// How long past its end a run waits for the answers that are still due.
const PATIENCE: Duration = Duration::from_secs(30);

/// The wait after a broken connection, so that a dead server is not met by a busy loop.
const PAUSE: Duration = Duration::from_millis(1);

/// Requests of one connection for whose times room is made before the clock starts.
const EXPECTED_REQUESTS: usize = 64 * 1024;

/// What a run saw. Its warm-up is not in it.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Requests answered with status 200.
    pub(crate) requests: u64,
    /// From the first request sent to the last answer received.
    pub(crate) elapsed: Duration,
    /// Requests with another status, an unreadable answer or none.
    pub(crate) failures: u64,
    /// How long each of `requests` took, reconnecting included where that was needed.
    pub(crate) latencies: Latencies,
    /// Requests before the clock started, which cost the server time all the same.
    pub(crate) warm_up: u64,
}

impl Sample {
    /// Requests answered with status 200, per second.
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 requests")]
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

/// Durations, in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    sorted_nanos: Vec<u64>,
}

impl Latencies {
    pub(crate) fn new(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        Self { sorted_nanos: nanos }
    }

    /// The shortest duration that is not exceeded by this share of all, from 0 to 1: 0.5 asks for
    /// the median. Zero when there are none.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a rank lies between 0 and the length, and no run has 2^52 requests"
    )]
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let rank = (self.sorted_nanos.len() as f64 * share).ceil() as usize;
        let nanos = self.sorted_nanos.get(rank.saturating_sub(1));
        Duration::from_nanos(nanos.copied().unwrap_or_default())
    }
}

/// When connections send their requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// From one request of a connection to its next.
    pub(crate) period: Duration,
    /// Whether all connections send at the same moments, rather than evenly one after the other.
    pub(crate) at_once: bool,
}

/// Sends `target` over `concurrency` connections for `duration`. Each connection sends its next
/// request as soon as the answer to the last came, and is opened anew after an error or when the
/// server announces that it closes it. Requests in flight at the end are waited for and counted.
/// One that gets no answer within 30 s of the end is a failure.
pub(crate) async fn run(target: &Target, concurrency: usize, duration: Duration) -> Sample {
    run_lines((0..concurrency).map(|_| HttpLine::lenient(target)), duration).await
}

/// [`run`], but each connection sends a request every `pace.period`, whether answers are quick or slow. One
/// that could not be sent when it was due, because the answer before had not come, took from then on.
pub(crate) async fn run_paced(
    target: &Target,
    (concurrency, pace): (u32, Pace),
    duration: Duration,
) -> Sample {
    let callers = (0..concurrency).map(|number| {
        let ahead = if pace.at_once { Duration::ZERO } else { pace.period * number / concurrency };
        Caller { line: HttpLine::lenient(target), pace: Some((pace.period, ahead)) }
    });
    run_callers(callers.collect(), duration).await
}

/// [`run`] with somebody who looks at the answers.
pub(crate) async fn run_judged(
    target: &Target,
    concurrency: usize,
    duration: Duration,
    judge: &Arc<dyn Judge>,
) -> Sample {
    run_lines((0..concurrency).map(|_| HttpLine::new(target, judge)), duration).await
}

/// Makes so many requests one after the other, all of which have to be answered.
pub(crate) async fn repeat(mut line: impl Line, count: u32) -> io::Result<()> {
    for _ in 0..count {
        if !line.call().await? {
            return Err(io::Error::other("a request was refused"));
        }
    }
    Ok(())
}

/// One client of this.
pub(crate) fn line(target: &Target) -> impl Line {
    HttpLine::lenient(target)
}

/// [`run`] over clients of any kind.
pub(crate) async fn run_lines<L: Line>(
    lines: impl Iterator<Item = L>,
    duration: Duration,
) -> Sample {
    run_callers(lines.map(|line| Caller { line, pace: None }).collect(), duration).await
}

async fn run_callers<L: Line>(callers: Vec<Caller<L>>, duration: Duration) -> Sample {
    let start = Arc::new(Barrier::new(callers.len()));
    let mut tallies = Vec::with_capacity(callers.len());
    let mut callers: JoinSet<Tally> =
        callers.into_iter().map(|caller| caller.run(Arc::clone(&start), duration)).collect();
    while let Some(tally) = callers.join_next().await {
        tallies.push(tally.expect("callers neither panic nor are cancelled"));
    }
    Tally::sum(tallies)
}

/// What one caller saw.
#[derive(Debug)]
struct Tally {
    started: Instant,
    ended: Instant,
    failures: u64,
    warm_up: u64,
    nanos: Vec<u64>,
}

impl Tally {
    fn new(warm_up: u64) -> Self {
        let (now, nanos) = (Instant::now(), Vec::with_capacity(EXPECTED_REQUESTS));
        Self { started: now, ended: now, failures: 0, warm_up, nanos }
    }

    fn sum(tallies: Vec<Self>) -> Sample {
        let started = tallies.iter().map(|tally| tally.started).min();
        let ended = tallies.iter().map(|tally| tally.ended).max();
        let elapsed = started.zip(ended).map(|(started, ended)| ended - started);
        let failures = tallies.iter().map(|tally| tally.failures).sum();
        let warm_up = tallies.iter().map(|tally| tally.warm_up).sum();
        let nanos: Vec<u64> = tallies.into_iter().flat_map(|tally| tally.nanos).collect();
        Sample {
            requests: nanos.len() as u64,
            elapsed: elapsed.unwrap_or_default(),
            failures,
            latencies: Latencies::new(nanos),
            warm_up,
        }
    }
}

/// A client that makes one request after the other.
pub(crate) trait Line: Send + 'static {
    /// Makes one; whether it was answered as it should be. After an error, what it needs is set up anew.
    fn call(&mut self) -> impl Future<Output = io::Result<bool>> + Send;
}

/// Sends one request after the other.
struct Caller<L> {
    line: L,
    /// The time between two requests, and that before the first; without it each is sent as soon as the
    /// one before was answered.
    pace: Option<(Duration, Duration)>,
}

impl<L: Line> Caller<L> {
    async fn run(mut self, start: Arc<Barrier>, duration: Duration) -> Tally {
        let warm_up = timeout(PATIENCE, self.warm_up(duration / WARM_UP_SHARE)).await;
        start.wait().await;
        let mut tally = Tally::new(warm_up.unwrap_or(0));
        let calls = self.call_until(tally.started + duration, &mut tally);
        if timeout(duration + PATIENCE, calls).await.is_err() {
            tally.failures += 1;
        }
        tally.ended = Instant::now();
        tally
    }

    /// How many requests were answered. What goes wrong is left to the measured ones to find.
    async fn warm_up(&mut self, at_most: Duration) -> u64 {
        let end = Instant::now() + at_most;
        for made in 1..=WARM_UP_REQUESTS {
            if self.line.call().await.is_err() || Instant::now() >= end {
                return made;
            }
        }
        WARM_UP_REQUESTS
    }

    async fn call_until(&mut self, end: Instant, tally: &mut Tally) {
        let (period, ahead) = self.pace.unwrap_or_default();
        let mut due = tally.started + ahead;
        loop {
            let begun = match self.pace {
                Some(_) => await_turn(due).await,
                None => Instant::now(),
            };
            if begun >= end {
                return;
            }
            due += period;
            match self.line.call().await {
                Ok(true) => tally.nanos.push(nanos(begun.elapsed())),
                Ok(false) => tally.failures += 1,
                Err(_) => {
                    tally.failures += 1;
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Waits until a request is due; from when on it takes its time. That this client wakes up late is not
/// the server's fault, but that it is late already is.
async fn await_turn(due: Instant) -> Instant {
    if Instant::now() >= due {
        return due;
    }
    sleep_until(due.into()).await;
    Instant::now()
}

fn nanos(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
