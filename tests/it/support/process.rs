//! The real binary as a process.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::project;

/// Long enough for anything that happens at all, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The binary with nothing of this process's environment that it reads. It finds the library that
/// `make onnxruntime` fetches by its working directory.
pub(crate) fn onward() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ONWARD_") {
            command.env_remove(name);
        }
    }
    // Servers run beside each other.
    command.env("ONWARD_SERVER_GRPC_LISTEN", "127.0.0.1:0");
    command.current_dir(project("")).stdin(Stdio::null());
    command
}

/// The exit code, standard output and standard error of a process that ends by itself.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("the binary was built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("it was not killed");
    (code, text(&output.stdout), text(&output.stderr))
}

/// A process whose output is read as it comes; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: watch::Receiver<Vec<String>>,
}

impl Process {
    /// Starts the server, which logs to standard error.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        Self { child, log: follow(stderr) }
    }

    /// Starts a program that tells what it does on standard output.
    pub(crate) fn spawn_telling(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let stdout = child.stdout.take().expect("standard output is a pipe");
        Self { child, log: follow(stdout) }
    }

    /// Waits for a line of the log that has all of these texts.
    #[track_caller]
    pub(crate) fn logged<'a>(&self, texts: &'a [&'a str]) -> impl Future<Output = String> + 'a {
        let mut log = self.log.clone();
        let found = move |lines: &[String]| {
            lines.iter().find(|line| texts.iter().all(|text| line.contains(text))).cloned()
        };
        async move {
            let seen = log.wait_for(|lines| found(lines).is_some());
            let line = timeout(PATIENCE, seen).await.ok().and_then(|lines| found(&lines.ok()?));
            line.unwrap_or_else(|| {
                panic!("no line with {texts:?} in:\n{}", log.borrow().join("\n"))
            })
        }
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().join("\n")
    }

    /// The most bytes of memory that it has had at once, where the system tells.
    pub(crate) fn peak(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    }

    /// How many files and sockets it has open, where the system tells.
    pub(crate) fn open_files(&self) -> Option<usize> {
        let folder = format!("/proc/{}/fd", self.child.id());
        Some(std::fs::read_dir(folder).ok()?.count())
    }

    /// The bytes of memory that it has now, where the system tells.
    pub(crate) fn resident(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("there is a kill command").success());
    }

    /// Waits for the process to end by itself; its exit code, or -1 where a signal has killed it.
    pub(crate) async fn exit_code(&mut self) -> i32 {
        let mut log = self.log.clone();
        // The log ends with the process.
        let ended = async { while log.changed().await.is_ok() {} };
        timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("still running:\n{}", self.log()));
        let status: ExitStatus = self.child.wait().expect("it was not waited for before");
        status.code().unwrap_or(-1)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Reads lines as they come, until the pipe is closed.
fn follow(pipe: impl Read + Send + 'static) -> watch::Receiver<Vec<String>> {
    let (sender, log) = watch::channel(Vec::new());
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let line = line.expect("logs are UTF-8");
            sender.send_modify(|lines| lines.push(line));
        }
    });
    log
}

/// Runs `work` on a thread where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic")
}
