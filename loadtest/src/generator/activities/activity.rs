//! What is done on a plan while a run is measured: each kind of work has its pacer and acts on the fleet.

use crate::clock::Nanos;
use crate::generator::fleet::Fleet;

/// One kind of work.
pub(crate) trait Activity {
    /// When it has something to do next; none: never again.
    fn next_at(&mut self) -> Option<Nanos>;

    /// Does what is due.
    fn act(&mut self, now: Nanos, fleet: &mut Fleet);

    /// Begins nothing new from now on. Whether something that was begun has still to be ended.
    fn finish(&mut self) -> bool {
        false
    }
}
