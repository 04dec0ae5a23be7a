//! Checks the ledger of a broker.

use std::time::{SystemTime, UNIX_EPOCH};

use roomcast_core::{BrokerError, Exchange, LedgerPage, LedgerPosition, LedgerRecord, MAX_LEDGER_PAGE};

use super::cluster::{Cluster, Node};

/// Every node reads every record once, in one order, whichever node has added it. A node that has
/// read nothing gets all of them, page by page. The step is skipped if the broker has no ledger.
pub(super) async fn shared(cluster: Cluster) {
    let step = cluster.step;
    let [one, two] = &cluster.nodes[..] else { unreachable!("a cluster of two") };
    if let Err(BrokerError::Unsupported { .. }) = exchange(one, None, Vec::new()).await {
        return cluster.close();
    }
    let mut reader = Reader::default();
    reader.read_all(two).await;
    let old = reader.read.len(); // other steps share the server
    let records: Vec<_> = (0..MAX_LEDGER_PAGE + 10).map(record).collect();
    for (number, chunk) in records.chunks(101).enumerate() {
        let node = [one, two][number % 2];
        exchange(node, None, chunk.to_vec()).await.expect("the ledger has space");
    }
    reader.read_all(two).await;
    assert!(reader.read[old..] == records[..], "{step}: a node reads all records once, in the order of their addition");

    let mut newcomer = Reader::default();
    newcomer.read_all(one).await;
    assert!(newcomer.read == reader.read, "{step}: a node that has read nothing gets all records");
    let added = exchange(one, newcomer.position.clone(), vec![record(0)]).await.expect("the ledger has space");
    assert_eq!(added.records, [record(0)], "{step}: a node reads what it has added in the same exchange");
    let foreign = LedgerPosition::new("1", 1);
    let again = exchange(one, Some(foreign), Vec::new()).await.expect("the ledger can be read");
    assert!(again.starts_over, "{step}: a position of another epoch starts over");
    cluster.close();
}

/// A record that expires in an hour.
fn record(number: usize) -> LedgerRecord {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let until = now / 3600 * 3600 + 7200; // the same in all calls of a test
    LedgerRecord::new(until, format!("{number} \n\0\u{e9}").into_bytes().into())
}

#[derive(Default)]
struct Reader {
    position: Option<LedgerPosition>,
    read: Vec<LedgerRecord>,
}

impl Reader {
    async fn read_all(&mut self, node: &Node) {
        while self.take(exchange(node, self.position.clone(), Vec::new()).await.expect("the ledger can be read")) {}
    }

    /// Takes a page, and returns whether more records follow.
    fn take(&mut self, page: LedgerPage) -> bool {
        assert_eq!(page.starts_over, self.position.as_ref().is_none_or(|at| at.epoch != page.position.epoch));
        assert!(page.records.len() <= MAX_LEDGER_PAGE);
        if page.starts_over {
            self.read.clear();
        }
        self.read.extend(page.records);
        self.position = Some(page.position);
        page.has_more
    }
}

async fn exchange(
    node: &Node,
    after: Option<LedgerPosition>,
    add: Vec<LedgerRecord>,
) -> Result<LedgerPage, BrokerError> {
    node.handle.within("an exchange with the ledger", node.handle.broker.exchange(Exchange::new(after, add))).await
}
