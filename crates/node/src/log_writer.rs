//! Writes log lines on a thread of its own, so that logging never waits for the log's reader.

use std::io::{self, Write};
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
    queue: Arc<Queue>,
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
        let dropped = IntCounter::new(
            "roomcast_log_lines_dropped_total",
            "Log lines dropped because standard error was not read fast enough",
        );
        let writer = Self { queue: Arc::default(), dropped: dropped.map_err(io::Error::other)? };
        let queue = Arc::clone(&writer.queue);
        thread::Builder::new().name("roomcast-log".into()).spawn(move || queue.write_to(output))?;
        Ok(Arc::new(writer))
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

impl Queue {
    fn write_to(&self, mut output: impl Write) {
        let mut state = self.state.lock();
        loop {
            self.changed.wait_while(&mut state, |state| state.waiting.is_empty());
            let lines = std::mem::take(&mut state.waiting);
            state.is_writing = true;
            drop(state);
            // If the output is closed or broken, there is nowhere else to report that.
            let _ = output.write_all(&lines);
            state = self.state.lock();
            state.is_writing = false;
            self.changed.notify_all();
        }
    }
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
}
