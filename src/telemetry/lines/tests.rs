use std::io::{PipeReader, Read, pipe};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn piped() -> (Lines, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    (Lines::to(writer).unwrap(), reader)
}

fn numbered(number: usize) -> String {
    format!("{number:>8} {}\n", "x".repeat(number % 700))
}

/// The next line's number, where the line is whole.
fn number(line: &str) -> usize {
    let number = line.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(numbered(number).trim_end_matches('\n'), line);
    number
}

#[test]
fn lines_are_written_by_whoever_has_them() {
    let (lines, mut reader) = piped();
    lines.0.put(b"one\n");
    lines.0.put(b"two\n");
    let mut read = [0; 8];
    reader.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"one\ntwo\n");
    assert!(!locked(&lines.0.state).is_busy);
    assert_eq!((lines.report(), lines.trouble()), (LinesReport::default(), None));
}

#[test]
fn nobody_waits_for_a_pipe_that_is_not_read_and_what_is_lost_is_counted() {
    let (lines, mut reader) = piped();
    let sent = 10_000;
    (0..sent).for_each(|number| lines.0.put(numbered(number).as_bytes()));
    assert!(lines.trouble().unwrap().contains("stopped"));
    lines.flush(Duration::from_millis(1));
    let LinesReport { full, failed } = lines.report();
    assert!(full > 0 && failed == 0, "{full} {failed}");

    let reading = thread::spawn(move || {
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        read
    });
    lines.flush(MINUTE);
    assert_eq!(lines.trouble(), None, "there is room again");
    lines.0.put(numbered(sent).as_bytes());
    assert_eq!(lines.report(), LinesReport { full, failed });
    // The thread holds the other end for ever.
    end(&lines);
    let read = reading.join().unwrap();
    let numbers: Vec<_> = read.lines().map(number).collect();
    assert!(numbers.is_sorted(), "in their order");
    assert_eq!(numbers.last(), Some(&sent));
    assert_eq!(numbers.len() as u64 + full, sent as u64 + 1);
}

/// Closes what these lines are written to.
fn end(lines: &Lines) {
    *locked(&lines.0.pen) = Pen::new(pipe().unwrap().1);
}

#[test]
fn many_may_write_at_once() {
    let (lines, mut reader) = piped();
    let reading = thread::spawn(move || {
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        read
    });
    thread::scope(|scope| {
        for part in 0..4 {
            let lines = &lines;
            scope.spawn(move || {
                for at in 0..500 {
                    lines.0.put(numbered(part * 500 + at).as_bytes());
                }
            });
        }
    });
    lines.flush(MINUTE);
    end(&lines);
    let mut numbers: Vec<_> = reading.join().unwrap().lines().map(number).collect();
    numbers.sort_unstable();
    let lost = lines.report().full;
    numbers.dedup();
    assert_eq!(numbers.len() as u64 + lost, 2000);
}

#[test]
fn a_reader_that_is_gone_is_told_of() {
    let (lines, reader) = piped();
    drop(reader);
    lines.0.put(b"nobody reads this\n");
    assert_eq!(lines.report(), LinesReport { full: 0, failed: 1 });
    let trouble = lines.trouble().unwrap();
    assert!(trouble.contains("Broken pipe"), "{trouble}");
}

/// A disk that may be full.
#[derive(Clone, Default)]
struct Disk {
    written: Arc<Mutex<Vec<u8>>>,
    is_full: Arc<AtomicBool>,
}

impl Out for Disk {
    /// Five bytes at a time, and of each line the first five even where it is full.
    fn write(&self, bytes: &[u8], _patience: Patience) -> io::Result<usize> {
        let mut written = locked(&self.written);
        if self.is_full.load(SeqCst) && !written.ends_with(b"\n") {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let piece = &bytes[..bytes.len().min(5)];
        written.extend(piece);
        Ok(piece.len())
    }
}

#[test]
fn a_line_after_one_that_is_torn_is_one_of_its_own() {
    let disk = Disk::default();
    let lines = Lines::to(disk.clone()).unwrap();
    lines.0.put(b"before\n");
    disk.is_full.store(true, SeqCst);
    lines.0.put(b"during it\n");
    lines.0.put(b"and later\n");
    assert_eq!(lines.report(), LinesReport { full: 0, failed: 2 });
    assert!(lines.trouble().is_some());
    disk.is_full.store(false, SeqCst);
    lines.0.put(b"after\n");
    lines.0.put(b"that\n");
    assert_eq!(lines.trouble(), None);
    let written = locked(&disk.written).clone();
    assert_eq!(String::from_utf8(written).unwrap(), "before\ndurin\nafter\nthat\n");
}
