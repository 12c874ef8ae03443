//! What a crowd of connections that ask for little does to those who ask a model.
//!
//! In turns: eight kept connections that ask a tiny model with nobody beside them; the same among 300 that
//! send the head of a request a byte a second, and come again when they are closed; the same during bursts of
//! 10,000 that are opened as fast as possible, of which every second one asks for `/livez`, and closed when
//! all are there; and the same while such bursts go to a listener in another process, which tells what the machine
//! pays for them without the server. A figure is the median over the rounds, and a ratio that of each
//! round's phases. It fails where one of the eight is not answered, or where the server keeps a connection or
//! its file. Linux only.
//!
//! `cargo bench --bench crowd -- --rounds 5 --seconds 6`

mod floor;
mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;
mod process;
mod report;
mod served;

use std::io::Write;
use std::iter;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use floor::Floor;
use load::{Sample, Target};
use options::Options;
use process::Memory;
use report::{Report, Table, median, number};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use served::Served;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections that ask the model.
const NORMAL: usize = 8;

/// Connections that never end the head of a request, and the time between two bytes of one.
const SLOW: u32 = 300;
const BYTE: Duration = Duration::from_secs(1);

/// Connections of a burst, where so many files may be open, and how many are being opened at once.
const BURST: u16 = 10_000;
const OPENERS: u16 = 250;

/// What the system holds for the listener beside the server, as it does for the server.
const BACKLOG: u32 = 4096;

/// The first port that a burst comes from.
const PORTS: u16 = 20_000;

/// How long a connection of a burst waits for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the server takes to notice that a few connections have gone, and how long it may for a crowd.
const SOON: Duration = Duration::from_secs(1);
const SETTLING: Duration = Duration::from_secs(15);

/// Between two looks at it, and before a connection that was refused is tried again.
const LOOK: Duration = Duration::from_millis(100);

const PROBE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
const BEGUN: &[u8] = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// So that the server closes slow ones within a phase, and takes a burst as a whole.
const FLAGS: [&str; 6] = [
    "--server.grpc_listen",
    "off",
    "--server.header_timeout",
    "3s",
    "--server.max_connections",
    "16384",
];

/// Who is there beside the normal traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crowd {
    Nobody,
    Slow,
    Burst,
    Elsewhere,
}

impl Crowd {
    const ALL: [Self; 4] = [Self::Nobody, Self::Slow, Self::Burst, Self::Elsewhere];

    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "quiet",
            Self::Slow => "among the slow",
            Self::Burst => "during bursts",
            Self::Elsewhere => "bursts at another listener",
        }
    }
}

/// What became of a crowd's connections, in all.
#[derive(Debug, Default)]
struct Fates {
    opened: AtomicU64,
    /// Those that the system or the server did not let in, or did not answer.
    lost: AtomicU64,
}

/// One phase.
struct Seen {
    normal: Sample,
    /// Of the crowd's connections, those that were opened, and those that were lost.
    opened: u64,
    lost: u64,
}

/// What the server has.
struct Holding {
    connections: f64,
    files: usize,
    memory: Memory,
}

/// All that the phases need.
struct Stage {
    onward: Served,
    target: Target,
    /// Where bursts go that are not for the server.
    aside: Floor,
    /// Connections of a burst.
    burst: u16,
    /// Runs the crowd, so that the normal traffic's tasks wait for no other.
    crowds: Handle,
    duration: Duration,
}

fn main() -> Result<ExitCode> {
    let defaults = Options { duration: Duration::from_secs(6), ..Options::default() };
    let options = defaults.with(std::env::args().skip(1))?;
    if options.role.as_deref() == Some(floor::ROLE) {
        runtime(1)?.block_on(stand_aside())?;
        return Ok(ExitCode::SUCCESS);
    }
    let files = more_files()?;
    let (normal, crowds) = (runtime(2)?, runtime(1)?);
    let repository = tempfile::TempDir::new()?;
    let folder = repository.path().join("tiny/1");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("model.onnx"), onnx::mlp(64, 32, 10))?;
    let onward = Served::start_with(repository.path(), &FLAGS)?;
    let input = json!({ "name": "x", "shape": [1, 64], "datatype": "FP32", "data": vec![0.5; 64] });
    let body = json!({ "inputs": [input] }).to_string();
    let target = load::post_json(onward.address(), "/v2/models/tiny/infer", body.as_bytes());
    let stage = Stage {
        onward,
        target,
        aside: Floor::start()?,
        burst: u16::try_from(files / 2).map_or(BURST, |most| most.min(BURST)),
        crowds: crowds.handle().clone(),
        duration: options.duration,
    };
    let (report, nothing_stays) = normal.block_on(compared(&stage, options.rounds))?;
    report.print();
    options.json.as_deref().map_or(Ok(()), |path| report.write(path))?;
    let is_right = nothing_stays && report.failures == 0;
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lets this process, and those that it starts, have as many files as it may; how many.
fn more_files() -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.map_or(Ok(usize::MAX), usize::try_from)?)
}

fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(threads).enable_all().build()?)
}

/// What was found, and whether the server has given everything back.
async fn compared(stage: &Stage, rounds: usize) -> Result<(Report, bool)> {
    load::run(&stage.target, NORMAL, stage.duration / 2).await;
    sleep(SOON).await;
    let before = Holding::of(&stage.onward).await?;
    let mut seen = Crowd::ALL.map(|_| Vec::new());
    for round in 0..rounds {
        let mut turn = Crowd::ALL;
        turn.rotate_left(round % Crowd::ALL.len());
        for crowd in turn {
            let network = u8::try_from((round * turn.len() + crowd as usize) % 256)?;
            seen[crowd as usize].push(stage.phase(crowd, network).await);
            stage.settled(&before).await?;
        }
    }
    let after = stage.settled(&before).await?;
    Ok((report(stage, &seen, [&before, &after]), after.is_within(&before)))
}

impl Stage {
    /// The normal traffic, beside a crowd that is gone afterwards, and whose bursts come from a network of
    /// their own.
    async fn phase(&self, crowd: Crowd, network: u8) -> Seen {
        let fates = Arc::<Fates>::default();
        let mut others = JoinSet::new();
        match crowd {
            Crowd::Nobody => {}
            Crowd::Slow => {
                for number in 0..SLOW {
                    let first = BYTE * number / SLOW;
                    let slow = dawdle(self.onward.address(), first, Arc::clone(&fates));
                    others.spawn_on(slow, &self.crowds);
                }
            }
            Crowd::Burst | Crowd::Elsewhere => {
                let is_aside = crowd == Crowd::Elsewhere;
                let at = if is_aside { self.aside.address() } else { self.onward.address() };
                let bursts = burst_again(at, self.burst, network, Arc::clone(&fates));
                others.spawn_on(bursts, &self.crowds);
            }
        }
        let normal = load::run(&self.target, NORMAL, self.duration).await;
        others.shutdown().await;
        let count = |fate: &AtomicU64| fate.load(Ordering::Relaxed);
        Seen { normal, opened: count(&fates.opened), lost: count(&fates.lost) }
    }

    /// What the server has once it has noticed that the crowd is gone, or after a while all the same.
    async fn settled(&self, before: &Holding) -> Result<Holding> {
        let begun = Instant::now();
        loop {
            let now = Holding::of(&self.onward).await?;
            if now.is_within(before) || begun.elapsed() > SETTLING {
                return Ok(now);
            }
            sleep(LOOK).await;
        }
    }
}

impl Holding {
    async fn of(onward: &Served) -> Result<Self> {
        let (_, page) = load::ask(&load::get(onward.address(), "/metrics")).await?;
        let page = String::from_utf8(page)?;
        let name = "onward_connections_open{listener=\"http\"} ";
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        let files = std::fs::read_dir(format!("/proc/{}/fd", onward.process()))?.count();
        let memory = Memory::of(onward.process())?;
        Ok(Self { connections: line.context("it is counted")?.parse()?, files, memory })
    }

    /// Whether there are no more connections and files than before.
    fn is_within(&self, before: &Self) -> bool {
        self.connections <= before.connections && self.files <= before.files
    }

    fn cells(&self) -> Vec<String> {
        let memory = [self.memory.resident, self.memory.peak].map(|value| number(value, 1));
        [&[number(self.connections, 0), self.files.to_string()], &memory[..]].concat()
    }
}

/// Sends the head of a request a byte a second, again and again.
async fn dawdle(address: SocketAddr, first: Duration, fates: Arc<Fates>) {
    sleep(first).await;
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            fates.opened.fetch_add(1, Ordering::Relaxed);
            dribble(stream).await;
        } else {
            fates.lost.fetch_add(1, Ordering::Relaxed);
            sleep(LOOK).await;
        }
    }
}

/// Until the server has closed it.
async fn dribble(mut stream: TcpStream) {
    for byte in BEGUN.iter().chain(iter::repeat(&b'x')) {
        let is_sent = stream.write_all(&[*byte]).await.is_ok();
        if !is_sent || timeout(BYTE, stream.read(&mut [0; 256])).await.is_ok() {
            return;
        }
    }
}

/// One burst after the other, each from an address of its own: the system keeps the ports of connections that
/// were closed for a minute, and takes long to find free ones.
async fn burst_again(address: SocketAddr, count: u16, network: u8, fates: Arc<Fates>) {
    let share = count / OPENERS;
    for number in (0..=u8::MAX).cycle() {
        let from = Ipv4Addr::new(127, 1, network, number);
        let opener = |opener| {
            let first = PORTS + opener * share;
            open((from, address), first..first + share, Arc::clone(&fates))
        };
        let mut openers: JoinSet<_> = (0..OPENERS).map(opener).collect();
        let mut all = Vec::with_capacity(openers.len());
        while let Some(opened) = openers.join_next().await {
            all.push(opened.expect("openers neither panic nor are cancelled"));
        }
        drop(all);
        sleep(LOOK).await;
    }
}

/// Opens connections one after the other, of which every second one asks, and keeps them.
async fn open(
    (from, to): (Ipv4Addr, SocketAddr),
    ports: Range<u16>,
    fates: Arc<Fates>,
) -> Vec<TcpStream> {
    let mut kept = Vec::with_capacity(ports.len());
    for port in ports {
        let from = SocketAddr::from((from, port));
        let opened = timeout(PATIENCE, opened(from, to, port % 2 == 0)).await;
        if let Ok(Ok(stream)) = opened {
            fates.opened.fetch_add(1, Ordering::Relaxed);
            kept.push(stream);
        } else {
            fates.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
    kept
}

async fn opened(from: SocketAddr, to: SocketAddr, asks: bool) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // A run before this one may have used the port.
    socket.set_reuseaddr(true)?;
    socket.bind(from)?;
    let mut stream = socket.connect(to).await?;
    if asks {
        stream.write_all(PROBE).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        anyhow::ensure!(&answer == b"HTTP/1.1 200", "it was refused");
    }
    Ok(stream)
}

/// Is a listener that answers whatever comes, and does nothing more. Prints its address.
async fn stand_aside() -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let listener = socket.listen(BACKLOG)?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(answer(stream));
    }
}

/// Until the other side has closed it.
async fn answer(mut stream: TcpStream) {
    let mut read = [0; 256];
    while stream.read(&mut read).await.is_ok_and(|read| read > 0) {
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

fn report(stage: &Stage, seen: &[Vec<Seen>; 4], [before, after]: [&Holding; 2]) -> Report {
    let mut left = Table::new(
        "The server, before and after",
        &["", "connections open", "files open", "resident MB", "peak MB"],
    );
    left.row([vec!["before".to_owned()], before.cells()].concat());
    left.row([vec!["after".to_owned()], after.cells()].concat());
    let failures: u64 = seen.iter().flatten().map(|phase| phase.normal.failures).sum();
    let ratio = |crowd: Crowd| 1.0 / of_quiet(seen, crowd, 0.99);
    Report {
        notes: vec![format!(
            "Rounds: {}, of {:?} a phase, in turns. {NORMAL} connections ask the tiny model all the time; there \
             are {SLOW} slow connections, and {} in a burst, which is followed by the next.",
            seen[0].len(),
            stage.duration,
            stage.burst / OPENERS * OPENERS
        )],
        tables: vec![normal_table(seen), crowd_table(seen), left],
        ratios: vec![
            ("p99 of the quiet, of that among the slow".into(), ratio(Crowd::Slow)),
            ("p99 of the quiet, of that during bursts".into(), ratio(Crowd::Burst)),
        ],
        failures,
        ..Report::of("crowd")
    }
}

fn micros(seen: &Seen, share: f64) -> f64 {
    seen.normal.latencies.percentile(share).as_secs_f64() * 1e6
}

/// The median of the rounds' ratios.
fn of_quiet(seen: &[Vec<Seen>; 4], crowd: Crowd, share: f64) -> f64 {
    let pairs = seen[crowd as usize].iter().zip(&seen[Crowd::Nobody as usize]);
    median(pairs.map(|(beside, quiet)| micros(beside, share) / micros(quiet, share)))
}

fn normal_table(seen: &[Vec<Seen>; 4]) -> Table {
    let columns =
        ["", "requests/s", "p50 us", "p99 us", "p50 of the quiet", "p99 of the quiet", "failed"];
    let mut table = Table::new("Normal traffic", &columns);
    for crowd in Crowd::ALL {
        let phases = &seen[crowd as usize];
        let of = |figure: &dyn Fn(&Seen) -> f64| median(phases.iter().map(figure));
        let failed: u64 = phases.iter().map(|phase| phase.normal.failures).sum();
        table.row(vec![
            crowd.name().to_owned(),
            number(of(&|phase| phase.normal.rate()), 0),
            number(of(&|phase| micros(phase, 0.5)), 0),
            number(of(&|phase| micros(phase, 0.99)), 0),
            number(of_quiet(seen, crowd, 0.5), 2),
            number(of_quiet(seen, crowd, 0.99), 2),
            failed.to_string(),
        ]);
    }
    table
}

fn crowd_table(seen: &[Vec<Seen>; 4]) -> Table {
    let mut table = Table::new("The crowd, in all rounds", &["", "opened", "lost"]);
    for crowd in [Crowd::Slow, Crowd::Burst, Crowd::Elsewhere] {
        let phases = &seen[crowd as usize];
        let opened: u64 = phases.iter().map(|phase| phase.opened).sum();
        let lost: u64 = phases.iter().map(|phase| phase.lost).sum();
        table.row(vec![crowd.name().to_owned(), opened.to_string(), lost.to_string()]);
    }
    table
}
