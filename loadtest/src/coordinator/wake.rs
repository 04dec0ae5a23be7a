//! What wakes the coordinator: workers, nodes' metrics, signals.

use std::io;
use std::sync::mpsc::Sender;

use crate::generator::Report;

use super::scrape::Scrape;

/// What wakes the coordinator.
#[derive(Debug)]
pub(crate) enum Wake {
    Worker(usize, Report),
    /// Its output has ended.
    Gone(usize),
    Scrape(Scrape),
    /// Ctrl-C, or SIGTERM.
    Signal,
}

impl From<Scrape> for Wake {
    fn from(scrape: Scrape) -> Self {
        Self::Scrape(scrape)
    }
}

/// Sends the first signal to the coordinator, which ends the run; a second one ends this process at once.
pub(crate) fn forward_signals(to: Sender<Wake>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    std::thread::spawn(move || {
        let mut so_far = 0;
        for _ in &mut signals {
            so_far += 1;
            if so_far > 1 || to.send(Wake::Signal).is_err() {
                // Who asks twice wants no report.
                std::process::exit(130);
            }
        }
    });
    Ok(())
}
