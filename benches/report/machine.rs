//! Where and when figures were taken.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(super) fn now() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// What the benchmark was started by, but for where it writes to.
pub(super) fn command(bench: &str) -> String {
    let mut arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--json") {
        arguments.drain(at..(at + 2).min(arguments.len()));
    }
    let command = format!("cargo bench --locked --bench {bench} -- {}", arguments.join(" "));
    command.trim_end_matches([' ', '-']).to_owned()
}

/// Processor, cores, memory and system.
pub(super) fn described() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "processor".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| gigabytes(&text));
    let memory = memory.map_or(String::new(), |memory| format!(", {memory:.0} GB"));
    let (system, of) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("{cores} cores of {processor}{memory}, {system} on {of}")
}

/// The first value of this name in a file of the kernel's.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn gigabytes(kibibytes: &str) -> Option<f64> {
    let number: f64 = kibibytes.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(number * 1024.0 / 1e9)
}
