//! The `onward` program: command line, configuration, engine, server, exit code.

mod check;
mod cli;
mod inspect;
mod probe;
mod remote;
mod terminal;

use std::convert::Infallible;
use std::io::Write;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;
use std::{env, io};

use mimalloc::MiMalloc;
use onward::app::{App, Configuration};
use onward::auth::{NewKey, Wish};
use onward::config::{Config, Effective, Layers};
use onward::lifecycle::{Ending, SignalSource, StopSignal};
use onward::onnx::{LibrarySearch, OnnxRuntime, bound_arenas};
use onward::telemetry::{self, Logs};

use tokio::runtime::Runtime;

use check::Subject;
use cli::Task;
use inspect::{Answer, Question};
use remote::RemoteError;

/// For what this program itself allocates. That of the C library, which the engine goes on to use, takes a
/// lock and a search for everything above a kilobyte, such as the futures of requests.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Exit codes; those of 64 and above are of `sysexits.h`, and those above 128 a shell's for a signal.
mod exit {
    pub(crate) const CLEAN: u8 = 0;
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const FORCED: u8 = 3;
    pub(crate) const UNAVAILABLE: u8 = 69;
    pub(crate) const NO_PERMISSION: u8 = 77;
    pub(crate) const CONFIG: u8 = 78;
    pub(crate) const INTERRUPTED: u8 = 130;
    pub(crate) const TERMINATED: u8 = 143;
}

/// How long the end of the process waits for who reads its log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What to say on standard error, and the exit code that goes with it.
struct Refusal {
    code: u8,
    text: String,
}

fn main() -> ExitCode {
    silence_engine_telemetry();
    bound_arenas(available_parallelism().map_or(1, NonZeroUsize::get));
    let task = match cli::parse(env::args_os(), env::vars_os().collect()) {
        Ok(task) => task,
        Err(error) => error.exit(),
    };
    let result = match task {
        Task::Serve(layers) => serve(&layers).map(|never| match never {}),
        Task::Health { layers, probe } => health(&layers, probe),
        Task::Key(wish) => key(&wish),
        Task::Config { layers, question } => inspect(&layers, question),
        Task::Check(subject) => check(&subject),
        Task::Print(text) => print(&text, exit::CLEAN),
        Task::Remote(request) => remote(request),
    };
    result.unwrap_or_else(|Refusal { code, text }| {
        // With standard error closed there is nobody to tell.
        writeln!(io::stderr(), "onward: {text}").ok();
        ExitCode::from(code)
    })
}

fn serve(layers: &Layers) -> Result<Infallible, Refusal> {
    let effective = read(layers)?;
    let config = effective.config();
    let logs = telemetry::init(&config.telemetry).map_err(|error| {
        let wrong = error.is_of_configuration();
        refuse(if wrong { exit::CONFIG } else { exit::FAILED }, error)
    })?;
    let ending = run(layers, &effective, logs.clone());
    logs.flush(LAST_LINES);
    leave(code(ending?))
}

fn run(layers: &Layers, effective: &Effective, logs: Logs) -> Result<Ending, Refusal> {
    let config = effective.config();
    let runtime = runtime(config)?;
    let ending = runtime.block_on(async {
        // From here on a signal is an event, and no longer the end.
        let signals = SignalSource::of_process().map_err(|error| refuse(exit::FAILED, error))?;
        let engine = engine(config)?;
        let configuration = Configuration::new(layers.clone(), effective.clone(), logs);
        let app = App::assemble(configuration, engine);
        let app = app.map_err(|error| {
            let wrong = error.is_of_configuration();
            refuse(if wrong { exit::CONFIG } else { exit::FAILED }, error)
        })?;
        Ok(app.run(signals).await)
    });
    // Work that blocks is not waited for.
    runtime.shutdown_background();
    ending
}

fn runtime(config: &Config) -> Result<Runtime, Refusal> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = config.server.workers.given() {
        runtime.worker_threads(workers.get());
    }
    runtime.enable_all().build().map_err(|error| refuse(exit::FAILED, error))
}

fn engine(config: &Config) -> Result<OnnxRuntime, Refusal> {
    let search = LibrarySearch {
        explicit: config.onnxruntime.library.given().cloned(),
        executable: env::current_exe().ok(),
        working_directory: env::current_dir().ok(),
    };
    OnnxRuntime::load(&search).map_err(|error| refuse(exit::UNAVAILABLE, error))
}

fn health(layers: &Layers, path: &str) -> Result<ExitCode, Refusal> {
    let effective = read(layers)?;
    let failed = |text| Refusal { code: exit::FAILED, text };
    probe::ask(&effective.config().server, path).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells what a server would make of models.
fn check(subject: &Subject) -> Result<ExitCode, Refusal> {
    let effective = read(&subject.layers)?;
    let config = effective.config();
    let runtime = runtime(config)?;
    let checked = runtime.block_on(async {
        let of = (config, subject.layers.environment.as_slice());
        let checked = onward::app::check(of, engine(config)?, subject.model.as_ref()).await;
        checked.map_err(|error| refuse(exit::FAILED, error))
    })?;
    let told = if subject.json { check::json(&checked) } else { check::text(&checked) };
    let code = if check::are_sound(&checked) { exit::CLEAN } else { exit::FAILED };
    print(told.as_bytes(), code)
}

/// Asks a server that runs.
fn remote(request: remote::Request) -> Result<ExitCode, Refusal> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| refuse(exit::FAILED, error))?;
    runtime.block_on(remote::run(request)).map_err(|failure| {
        let code = match failure.remote() {
            Some(RemoteError::Unreachable { .. }) => exit::UNAVAILABLE,
            Some(error) if error.is_of_rights() => exit::NO_PERMISSION,
            _ => exit::FAILED,
        };
        refuse(code, failure)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn inspect(layers: &Layers, question: Question) -> Result<ExitCode, Refusal> {
    let answer = inspect::answer(layers, question);
    let Answer { text, sound } = answer.map_err(|error| refuse(exit::CONFIG, error))?;
    print(text.as_bytes(), if sound { exit::CLEAN } else { exit::CONFIG })
}

fn key(wish: &Wish) -> Result<ExitCode, Refusal> {
    let made = NewKey::generate(wish).map_err(|error| refuse(exit::FAILED, error))?;
    print(format!("{}\n{}", made.key, made.entry).as_bytes(), exit::CLEAN)
}

/// Prints, and ends with this code.
fn print(text: &[u8], code: u8) -> Result<ExitCode, Refusal> {
    match io::stdout().write_all(text) {
        // Who has read enough closes the pipe.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(refuse(exit::FAILED, error)),
        _ => Ok(ExitCode::from(code)),
    }
}

fn read(layers: &Layers) -> Result<Effective, Refusal> {
    layers.read().map_err(|error| refuse(exit::CONFIG, error))
}

/// The error and everything behind it.
fn refuse(code: u8, error: impl Into<anyhow::Error>) -> Refusal {
    Refusal { code, text: format!("{:#}", error.into()) }
}

const fn code(ending: Ending) -> u8 {
    match ending {
        Ending::Clean => exit::CLEAN,
        Ending::Failed => exit::FAILED,
        Ending::Forced => exit::FORCED,
        Ending::Signalled(StopSignal::Interrupt) => exit::INTERRUPTED,
        Ending::Signalled(StopSignal::Terminate) => exit::TERMINATED,
    }
}

/// Ends the process without running the engine's destructors: they may not run while a thread is
/// inside the engine, and a load that was given up may still be.
#[expect(unsafe_code, reason = "the standard library's exit runs destructors")]
fn leave(code: u8) -> ! {
    // SAFETY: _exit takes a plain number, may be called at any time and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// ONNX Runtime starts a telemetry thread when it is loaded, unless it is told not to.
#[expect(
    unsafe_code,
    reason = "the engine reads the environment; there is no other way to tell it"
)]
fn silence_engine_telemetry() {
    // SAFETY: this is the first thing that main does, so the process has a single thread.
    unsafe { env::set_var("ORT_DISABLE_TELEMETRY", "1") };
}
