//! Writes log lines on a thread of its own, so that logging never waits for the log's reader.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

/// How many bytes of lines may wait to be written: about 2,000 lines. Beyond that, lines are dropped and counted:
/// unread logs must block neither connections nor the node's exit.
const MAX_WAITING: usize = 256 * 1024;

/// A bounded queue of lines. Each write is one line, which is queued whole or dropped.
#[derive(Debug)]
pub(crate) struct LogWriter {
    queue: Queue,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread is writing lines that it took from `waiting`.
    is_writing: bool,
}

impl LogWriter {
    /// Starts the thread that writes.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let writer = Arc::new(Self::new()?);
        let writing = Arc::clone(&writer);
        thread::Builder::new().name("roomcast-log".into()).spawn(move || writing.write_to(output))?;
        Ok(writer)
    }

    fn new() -> io::Result<Self> {
        let dropped = IntCounter::new(
            "roomcast_log_lines_dropped_total",
            "Log lines dropped because standard error was not read fast enough or could not be written to",
        );
        Ok(Self { queue: Queue::default(), dropped: dropped.map_err(io::Error::other)? })
    }

    /// Counts the lines that were dropped.
    pub(crate) fn dropped(&self) -> &IntCounter {
        &self.dropped
    }

    /// Waits until everything is written, at most for `timeout`.
    pub(crate) fn flush_within(&self, timeout: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        // After the timeout, the rest is lost: nobody reads it.
        let _ = self.queue.changed.wait_while_for(&mut self.queue.state.lock(), is_busy, timeout);
    }
}

impl Write for &LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.queue.state.lock();
        if state.waiting.len() + line.len() <= MAX_WAITING {
            state.waiting.extend_from_slice(line);
            self.queue.changed.notify_all();
        } else {
            self.dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogWriter {
    fn write_to(&self, output: impl Write) {
        let mut output = Output { output, cut: Vec::new() };
        // Lines lost since the last write that worked: only then is there somewhere to report them.
        let mut lost = 0;
        let mut state = self.queue.state.lock();
        loop {
            self.queue.changed.wait_while(&mut state, |state| state.waiting.is_empty());
            let lines = std::mem::take(&mut state.waiting);
            state.is_writing = true;
            drop(state);
            match output.write(&lines) {
                0 if lost > 0 => {
                    tracing::warn!(lines = lost, "log lines were lost because standard error could not be written to");
                    lost = 0;
                }
                newly_lost => {
                    lost += newly_lost;
                    self.dropped.inc_by(newly_lost);
                }
            }
            state = self.queue.state.lock();
            state.is_writing = false;
            self.queue.changed.notify_all();
        }
    }
}

/// Where lines are written to. No line is ever cut in its middle for good.
struct Output<W> {
    output: W,
    /// The rest of a line whose start was written before writing failed.
    cut: Vec<u8>,
}

impl<W: Write> Output<W> {
    /// Writes lines, and returns how many of them are lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if !self.cut.is_empty() {
            let written = write_while_it_works(&mut self.output, &self.cut);
            self.cut.drain(..written);
            if !self.cut.is_empty() {
                return count(lines);
            }
        }
        let written = write_while_it_works(&mut self.output, lines);
        let (done, mut rest) = lines.split_at(written);
        if done.last().is_some_and(|last| *last != b'\n') {
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            self.cut.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        }
        count(rest)
    }
}

/// Returns how many bytes were written before the end or the first error.
fn write_while_it_works(output: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match output.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(len) => written += len,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    written
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn lines_that_nobody_reads_are_dropped_whole_and_counted() {
        let (reader, pipe) = io::pipe().expect("a pipe");
        let writer = LogWriter::start(pipe).expect("a thread");
        // More than a full queue, as much in the writing thread's hands, and the pipe hold together.
        let sent = 3 * MAX_WAITING / 10;
        for number in 0..sent {
            (&*writer).write_all(format!("{number:>9}\n").as_bytes()).expect("it never fails");
        }
        let dropped = writer.dropped().get() as usize;
        assert!(dropped > 0 && dropped < sent, "{dropped} of {sent}");
        writer.flush_within(Duration::from_millis(10)); // it returns, though nothing is read

        let lines = BufReader::new(reader).lines().take(sent - dropped);
        let numbers: Vec<usize> = lines.map(|line| line.expect("text").trim().parse().expect("whole")).collect();
        assert_eq!(numbers.len(), sent - dropped);
        assert!(numbers.is_sorted());
    }

    /// A disk with room for so many bytes.
    #[derive(Debug, Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn make_room(&self, bytes: usize) {
            self.0.lock().0 += bytes;
        }

        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8_lossy(&self.0.lock().1).into_owned();
            text.lines().map(str::to_owned).collect()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock();
            let len = bytes.len().min(*room);
            if len == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            *room -= len;
            written.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_lost_to_a_full_disk_are_counted_and_reported_once_there_is_room_again() {
        let disk = Disk::default();
        let writer = Arc::new(LogWriter::new().expect("a counter"));
        let (writing, output) = (Arc::clone(&writer), disk.clone());
        let logs = tracing_subscriber::fmt().with_writer(Arc::clone(&writer)).with_ansi(false).finish();
        thread::spawn(move || tracing::subscriber::with_default(logs, || writing.write_to(output)));
        let log = |line: &str| {
            (&*writer).write_all(line.as_bytes()).expect("it never fails");
            writer.flush_within(Duration::from_secs(60));
        };

        disk.make_room("first\nsec".len());
        log("first\n");
        log("second\n");
        log("third\n");
        log("fourth\n");
        assert_eq!(disk.lines(), ["first", "sec"]);
        assert_eq!(writer.dropped().get(), 2);

        disk.make_room(1000);
        log("fifth\n");
        let [first, second, fifth, report] = &disk.lines()[..] else { panic!("{:?}", disk.lines()) };
        assert_eq!([first, second, fifth], ["first", "second", "fifth"]);
        assert!(report.contains("WARN") && report.ends_with("lines=2"), "{report}");
        assert_eq!(writer.dropped().get(), 2);
    }
}
