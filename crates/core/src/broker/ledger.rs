//! The ledger: records that all nodes of a cluster must get, and that outlast the nodes.

use bytes::Bytes;

/// The largest number of records in a ledger that have not expired.
pub const MAX_LEDGER_RECORDS: usize = 10_000;

/// The largest number of records in a page.
pub const MAX_LEDGER_PAGE: usize = 1_000;

/// A record of the ledger. Its content means nothing to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LedgerRecord {
    /// The second since 1970 at which the broker may remove the record.
    pub until: u64,
    /// The content, at most 4 KiB.
    pub bytes: Bytes,
}

impl LedgerRecord {
    /// Creates a record.
    pub fn new(until: u64, bytes: Bytes) -> Self {
        Self { until, bytes }
    }
}

/// A place in the ledger, up to which a node has read it. After the ledger has lost records, its
/// epoch is another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerPosition {
    /// The epoch of the ledger.
    pub epoch: String,
    /// The number of records in this epoch that the node has read.
    pub read: u64,
}

impl LedgerPosition {
    /// Creates a position.
    pub fn new(epoch: impl Into<String>, read: u64) -> Self {
        Self { epoch: epoch.into(), read }
    }
}

/// One exchange with the ledger: the records to add, and the position after which to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exchange {
    /// The position up to which the node has read the ledger. `None` to read it from the start.
    pub after: Option<LedgerPosition>,
    /// The records to add before the ledger is read.
    pub add: Vec<LedgerRecord>,
}

impl Exchange {
    /// Creates an exchange.
    pub fn new(after: Option<LedgerPosition>, add: Vec<LedgerRecord>) -> Self {
        Self { after, add }
    }
}

/// The result of an exchange: the next records of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerPage {
    /// Whether the records are the first ones of the ledger, because the requested position is of
    /// another epoch, or because none was requested.
    pub starts_over: bool,
    /// The position after the records of this page.
    pub position: LedgerPosition,
    /// The records, in the order in which they were added. At most [`MAX_LEDGER_PAGE`].
    pub records: Vec<LedgerRecord>,
    /// Whether more records follow this page.
    pub has_more: bool,
}

impl LedgerPage {
    /// Creates a page.
    pub fn new(starts_over: bool, position: LedgerPosition, records: Vec<LedgerRecord>, has_more: bool) -> Self {
        Self { starts_over, position, records, has_more }
    }
}
