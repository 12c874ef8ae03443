//! Whether a server that swaps a large model again and again keeps more and more memory.
//!
//! Two versions of 100 MB of weights each are swapped for each other, while a few requests a second
//! are answered. The server's resident set is looked at when the old version says that it is unloaded.
//! The last figure may be a tenth above that after ten swaps.
//!
//! `cargo bench --bench memory -- --swaps 300`; Linux only.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod control;
mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;
mod process;
mod served;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use control::{Control, put};
use load::Target;
use options::Options;
use process::Memory;
use serde_json::json;
use served::Served;
use tokio::time::sleep;

const MODEL: &str = "wide";

/// Of the model: 25 million numbers of four bytes.
const SHAPE: [usize; 3] = [2500, 9960, 10];

/// The swaps after which the memory is looked at first, and later on.
const FIRST: u32 = 10;
const EVERY: u32 = 50;

/// The most that the last figure may be of the first.
const MOST: f64 = 1.1;

/// Between two requests.
const TRICKLE: Duration = Duration::from_millis(100);

fn main() -> Result<ExitCode> {
    let options = Options { swaps: 300, ..Options::default() }.with(std::env::args().skip(1))?;
    ensure!(options.swaps > FIRST, "--swaps must be more than {FIRST}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(watch(options.swaps))
}

async fn watch(swaps: u32) -> Result<ExitCode> {
    let repository = tempfile::TempDir::new()?;
    let onward = Served::start(repository.path())?;
    let (control, process) = (Control(onward.address()), onward.process());
    let [what, resident, anonymous, peak] = ["", "resident MB", "anonymous MB", "peak MB"];
    println!("{what:<20}{resident:>12}{anonymous:>14}{peak:>10}{:>16}", "of the first");
    print("no model", Memory::of(process)?, None);
    for (version, seed) in [(1, 0), (2, 1)] {
        put(repository.path(), (MODEL, version), &onnx::mlp_of(seed, SHAPE))?;
    }
    let settings = "version_policy: { specific: [1] }\ninstances: 1\n";
    std::fs::write(repository.path().join(MODEL).join("model.yaml"), settings)?;
    control.load(MODEL).await?;
    print("one version", Memory::of(process)?, None);

    let trickle = Trickle::start(&onward);
    let started = Instant::now();
    let mut first: Option<Memory> = None;
    let mut last = Memory::default();
    for swap in 1..=swaps {
        let (old, new) = if swap % 2 == 1 { (1, 2) } else { (2, 1) };
        control.swap(MODEL, new).await?;
        control.unloaded(MODEL, old).await?;
        if swap == FIRST || swap % EVERY == 0 || swap == swaps {
            last = Memory::of(process)?;
            print(&format!("after {swap} swaps"), last, Some(*first.get_or_insert(last)));
        }
    }
    let each = started.elapsed() / swaps;
    let (answered, failed) = trickle.stop().await?;
    println!("{each:?} a swap; requests beside them: {answered} answered, {failed} failed");
    let ratio = last.resident / first.context("there was a first look")?.resident;
    let is_level = ratio <= MOST && failed == 0;
    println!("last of first: {ratio:.3}, at most {MOST} is right");
    Ok(if is_level { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line of the table.
fn print(when: &str, memory: Memory, first: Option<Memory>) {
    let Memory { resident, anonymous, peak } = memory;
    let ratio = first.map_or(String::new(), |first| format!("{:.3}", resident / first.resident));
    println!("{when:<20}{resident:>12.1}{anonymous:>14.1}{peak:>10.1}{ratio:>16}");
}

/// A few requests a second, each on a connection of its own.
struct Trickle {
    over: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<(u64, u64)>,
}

impl Trickle {
    fn start(onward: &Served) -> Self {
        let data = vec![0.5; SHAPE[0]];
        let input =
            json!({ "name": "x", "shape": [1, SHAPE[0]], "datatype": "FP32", "data": data });
        let body = json!({ "inputs": [input] }).to_string();
        let path = format!("/v2/models/{MODEL}/infer");
        let target = load::post_json(onward.address(), &path, body.as_bytes());
        let over = Arc::<AtomicBool>::default();
        let asking = tokio::spawn(ask(target, Arc::clone(&over)));
        Self { over, asking }
    }

    /// Requests that were answered with status 200, and others.
    async fn stop(self) -> Result<(u64, u64)> {
        self.over.store(true, Ordering::SeqCst);
        Ok(self.asking.await?)
    }
}

/// Asks until it is over; how many requests were answered with status 200, and how many were not.
async fn ask(target: Target, over: Arc<AtomicBool>) -> (u64, u64) {
    let (mut answered, mut failed) = (0, 0);
    while !over.load(Ordering::SeqCst) {
        match load::ask(&target).await {
            Ok((200, _)) => answered += 1,
            _ => failed += 1,
        }
        sleep(TRICKLE).await;
    }
    (answered, failed)
}
