//! The ledger in Redis: a list of records, to which a script adds and from which it reads.

use std::sync::Arc;

use fred::types::Value;
use roomcast_core::{
    BrokerError, Exchange, LedgerPage, LedgerPosition, LedgerRecord, MAX_LEDGER_PAGE, MAX_LEDGER_RECORDS, RoomName,
};

use crate::io::commands::{Commands, Script, digest};
use crate::io::publisher::Publisher;
use crate::io::scripts::{Scripts, unexpected};
use crate::state::keys::Keys;
use crate::state::seal::{MAC_LEN, Seal};
use crate::state::stored::LEDGER;

/// The position of a node that has not read the ledger.
const NOWHERE: &str = "-";

/// The latest second at which a record may expire: the end of the year 9999.
const LATEST: u64 = 253_402_300_799;

/// The ledger of a cluster.
pub(crate) struct Ledger {
    scripts: Scripts,
    keys: [String; 2],
    seal: Seal,
    digest: String,
}

impl Ledger {
    pub(crate) fn new(commands: Arc<Commands>, publisher: Arc<Publisher>, keys: &Keys, seal: Seal) -> Self {
        let scripts = Scripts::new(commands, publisher, RoomName::internal("nodes", "ledger"));
        Self { scripts, keys: keys.ledger(), seal, digest: digest(LEDGER) }
    }

    /// Adds the records of an exchange, and returns what follows its position.
    pub(crate) async fn exchange(&self, exchange: Exchange) -> Result<LedgerPage, BrokerError> {
        let script = self.script(&exchange);
        let reply = self.scripts.run(&script).await.map_err(|error| match error.details() {
            full if full.starts_with("LEDGERFULL") => BrokerError::LedgerFull,
            reason => BrokerError::Unavailable { reason: reason.to_owned() },
        })?;
        self.page(reply).ok_or_else(|| unexpected("ledger"))
    }

    fn script(&self, exchange: &Exchange) -> Script<'_> {
        let (epoch, read) = match &exchange.after {
            Some(LedgerPosition { epoch, read, .. }) => (epoch.as_str(), *read),
            None => (NOWHERE, 0),
        };
        let mut arguments = vec![Value::from(epoch), Value::Integer(read.cast_signed())];
        arguments.extend([MAX_LEDGER_PAGE, MAX_LEDGER_RECORDS].map(|limit| Value::Integer(limit as i64)));
        for record in &exchange.add {
            let until = record.until.min(LATEST).to_string();
            let mut content = Vec::with_capacity(MAC_LEN + record.bytes.len());
            content.extend(self.seal.sign(self.keys[1].as_bytes(), [until.as_bytes(), &record.bytes]).iter().flatten());
            content.extend(&record.bytes);
            arguments.extend([Value::from(until), Value::Bytes(content.into())]);
        }
        Script { text: LEDGER, digest: &self.digest, keys: self.keys.to_vec(), arguments }
    }

    /// Reads the script's reply. Records that no node of this cluster has signed are left out.
    fn page(&self, reply: Value) -> Option<LedgerPage> {
        let [starts_over, epoch, read, has_more, items]: [Value; 5] = reply.into_array().try_into().ok()?;
        let position = LedgerPosition::new(epoch.as_string()?, read.as_u64()?);
        let records = items.into_array().iter().filter_map(|item| self.record(item.as_bytes()?)).collect();
        Some(LedgerPage::new(starts_over.as_u64()? == 1, position, records, has_more.as_u64()? == 1))
    }

    fn record(&self, item: &[u8]) -> Option<LedgerRecord> {
        let space = item.iter().position(|byte| *byte == b' ')?;
        let (until, content) = (&item[..space], &item[space + 1..]);
        let content = match self.seal.is_active() {
            false => content,
            true => {
                let (mac, content) = content.split_at_checked(MAC_LEN)?;
                if !self.seal.accepts(self.keys[1].as_bytes(), [until, content], mac) {
                    tracing::warn!("ignored a revocation in Redis that is not signed with the cluster's secret");
                    return None;
                }
                content
            }
        };
        let until = std::str::from_utf8(until).ok()?.parse().ok()?;
        Some(LedgerRecord::new(until, content.to_vec().into()))
    }
}
