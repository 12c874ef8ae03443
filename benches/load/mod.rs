//! A closed-loop HTTP/1.1 load client that costs little next to the server under test.
//!
//! The request is built once, connections are kept alive, and an answer is gone when the next comes.
//! Requests are never pipelined. An answer must state its `Content-Length`: a chunked one is an error.

#![allow(dead_code, reason = "each benchmark takes its pick")]

mod head;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use head::Head;

/// Requests that each connection makes before the clock starts.
const WARM_UP_REQUESTS: usize = 16;

/// How long past its end a run waits for the answers that are still due.
const PATIENCE: Duration = Duration::from_secs(30);

/// The wait after a broken connection, so that a dead server is not met by a busy loop.
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes that one read takes at most; the head of an answer must fit.
const BUFFER: usize = 64 * 1024;

/// Requests of one connection for whose times room is made before the clock starts.
const EXPECTED_REQUESTS: usize = 64 * 1024;

/// What to send, and where.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The server.
    pub(crate) addr: SocketAddr,
    /// One whole HTTP/1.1 request, head and body.
    pub(crate) request: Vec<u8>,
}

/// A `GET`.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Target {
    Target { addr, request: format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\n\r\n").into_bytes() }
}

/// A `POST` of `body` as `application/json`.
pub(crate) fn post_json(addr: SocketAddr, path: &str, body: &[u8]) -> Target {
    request("POST", addr, path, body)
}

/// Any method with `body` as `application/json`.
pub(crate) fn request(method: &str, addr: SocketAddr, path: &str, body: &[u8]) -> Target {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    Target { addr, request: [head.as_bytes(), body].concat() }
}

/// Looks at every answer of status 200, those of the warm-up included.
pub(crate) trait Judge: Send + Sync {
    /// Called right before a request is sent; the ticket comes back with its answer.
    fn sends(&self) -> u64;

    /// The answer to the request with this ticket; empty when it is longer than [`BUFFER`].
    fn answered(&self, ticket: u64, body: &[u8]);
}

/// Takes every answer.
struct Lenient;

impl Judge for Lenient {
    fn sends(&self) -> u64 {
        0
    }

    fn answered(&self, _: u64, _: &[u8]) {}
}

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
    run_judged(target, concurrency, duration, &(Arc::new(Lenient) as _)).await
}

/// [`run`], but each connection sends a request every `pace.period`, whether answers are quick or slow. One
/// that could not be sent when it was due, because the answer before had not come, took from then on.
pub(crate) async fn run_paced(
    target: &Target,
    (concurrency, pace): (u32, Pace),
    duration: Duration,
) -> Sample {
    let judge: Arc<dyn Judge> = Arc::new(Lenient);
    let callers = (0..concurrency).map(|number| {
        let ahead = if pace.at_once { Duration::ZERO } else { pace.period * number / concurrency };
        Caller::new(target, &judge, Some((pace.period, ahead)))
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
    let callers = (0..concurrency).map(|_| Caller::new(target, judge, None));
    run_callers(callers.collect(), duration).await
}

async fn run_callers(callers: Vec<Caller>, duration: Duration) -> Sample {
    let start = Arc::new(Barrier::new(callers.len()));
    let mut tallies = Vec::with_capacity(callers.len());
    let mut callers: JoinSet<Tally> =
        callers.into_iter().map(|caller| caller.run(Arc::clone(&start), duration)).collect();
    while let Some(tally) = callers.join_next().await {
        tallies.push(tally.expect("callers neither panic nor are cancelled"));
    }
    Tally::sum(tallies)
}

/// Sends one request on a connection of its own; the status and the body of its answer, which is at
/// most [`BUFFER`] long, head included.
pub(crate) async fn ask(target: &Target) -> io::Result<(u16, Vec<u8>)> {
    let mut connection = Connection::open(target.addr).await?;
    let (head, body) = connection.exchange(&target.request).await?;
    if head.answer > BUFFER { Err(malformed("too long")) } else { Ok((head.status, body.to_vec())) }
}

/// What one caller saw.
#[derive(Debug)]
struct Tally {
    started: Instant,
    ended: Instant,
    failures: u64,
    nanos: Vec<u64>,
}

impl Tally {
    fn new() -> Self {
        let now = Instant::now();
        Self { started: now, ended: now, failures: 0, nanos: Vec::with_capacity(EXPECTED_REQUESTS) }
    }

    fn sum(tallies: Vec<Self>) -> Sample {
        let started = tallies.iter().map(|tally| tally.started).min();
        let ended = tallies.iter().map(|tally| tally.ended).max();
        let elapsed = started.zip(ended).map(|(started, ended)| ended - started);
        let failures = tallies.iter().map(|tally| tally.failures).sum();
        let nanos: Vec<u64> = tallies.into_iter().flat_map(|tally| tally.nanos).collect();
        Sample {
            requests: nanos.len() as u64,
            elapsed: elapsed.unwrap_or_default(),
            failures,
            latencies: Latencies::new(nanos),
        }
    }
}

/// Sends one request after the other, over at most one connection at a time.
struct Caller {
    target: Target,
    judge: Arc<dyn Judge>,
    /// The time between two requests, and that before the first; without it each is sent as soon as the
    /// one before was answered.
    pace: Option<(Duration, Duration)>,
    idle: Option<Connection>,
}

impl Caller {
    fn new(target: &Target, judge: &Arc<dyn Judge>, pace: Option<(Duration, Duration)>) -> Self {
        Self { target: target.clone(), judge: Arc::clone(judge), pace, idle: None }
    }

    async fn run(mut self, start: Arc<Barrier>, duration: Duration) -> Tally {
        drop(timeout(PATIENCE, self.warm_up()).await);
        start.wait().await;
        let mut tally = Tally::new();
        let calls = self.call_until(tally.started + duration, &mut tally);
        if timeout(duration + PATIENCE, calls).await.is_err() {
            tally.failures += 1;
        }
        tally.ended = Instant::now();
        tally
    }

    /// What goes wrong here is left to the measured requests to find.
    async fn warm_up(&mut self) {
        for _ in 0..WARM_UP_REQUESTS {
            if self.call().await.is_err() {
                return;
            }
        }
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
            match self.call().await {
                Ok(200) => tally.nanos.push(nanos(begun.elapsed())),
                Ok(_) => tally.failures += 1,
                Err(_) => {
                    tally.failures += 1;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Sends the request and returns the status of its answer.
    async fn call(&mut self) -> io::Result<u16> {
        let mut connection = match self.idle.take() {
            Some(connection) => connection,
            None => Connection::open(self.target.addr).await?,
        };
        let ticket = self.judge.sends();
        let (head, body) = connection.exchange(&self.target.request).await?;
        if head.status == 200 {
            self.judge.answered(ticket, body);
        }
        self.idle = head.keep_alive.then_some(connection);
        Ok(head.status)
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

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
}

impl Connection {
    async fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self { stream, buffer })
    }

    /// Sends one request and reads its whole answer, whose body is empty when it is too long for the
    /// buffer. After an error the connection is of no use.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<(Head, &[u8])> {
        self.stream.write_all(request).await?;
        let (head, mut received) = self.read_head().await?;
        let fits = head.answer <= self.buffer.len();
        while received < head.answer {
            received += self.read(if fits { received } else { 0 }).await?;
        }
        if received > head.answer {
            return Err(malformed("more than one answer"));
        }
        let body = if fits { &self.buffer[head.length..head.answer] } else { &[] };
        Ok((head, body))
    }

    /// The head, and the bytes received so far, of which some may be the body's.
    async fn read_head(&mut self) -> io::Result<(Head, usize)> {
        let mut received = 0;
        loop {
            received += self.read(received).await?;
            if let Some(head) = Head::parse(&self.buffer[..received])? {
                return Ok((head, received));
            }
        }
    }

    /// One read into the buffer from `at` on.
    async fn read(&mut self, at: usize) -> io::Result<usize> {
        match self.stream.read(&mut self.buffer[at..]).await? {
            0 if at == self.buffer.len() => Err(malformed("a head without end")),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
