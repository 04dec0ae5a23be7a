//! The keys of an issuer that publishes them at a URL, and the task that fetches them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::fetched_keys::{Failure, FetchedKeys, Lookup};
use crate::jwks::{FetchError, JwksClient, JwksUrl};
use crate::keys::Keys;
use crate::token::escaped;

/// How long the verification of one token waits for a fetch. It is shorter than the time that a
/// router gives its authorizer, so that the client gets a response with the reason.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// The value of the label `result` for a fetch that succeeded.
const OK: &str = "ok";

/// The keys of an issuer that publishes them at a URL. Cheap to clone; clones share the keys.
///
/// The first use starts a task that fetches the keys at once, and then every 10 min, or 30 s after a
/// failure. A token with an unknown key id causes another fetch, but at most one in 30 s. While the
/// keys cannot be fetched, the previous keys stay in use for up to 24 h. The task ends when the last
/// clone is dropped.
#[derive(Debug, Clone)]
pub struct RemoteKeys(Arc<Handle>);

/// What all clones share. The task has only the [`Shared`] part, so that it ends with the clones.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
struct Shared {
    url: JwksUrl,
    client: JwksClient,
    state: Mutex<State>,
    /// A token names a key that is not known.
    is_wanted: Notify,
    /// Changes at the end of each fetch.
    ended: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    keys: FetchedKeys,
    /// Numbers of fetches, by result.
    fetches: BTreeMap<&'static str, u64>,
    /// The error of the last fetch, if it failed.
    problem: Option<FetchError>,
}

/// The error of a key that cannot be looked up, because the keys cannot be fetched for this reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unavailable(pub(crate) String);

impl RemoteKeys {
    /// Creates the keys at a URL, without fetching them yet.
    pub fn new(url: JwksUrl, client: JwksClient) -> Self {
        let shared =
            Shared { url, client, state: Mutex::default(), is_wanted: Notify::new(), ended: watch::Sender::new(()) };
        Self(Arc::new(Handle { shared: Arc::new(shared), task: Mutex::default() }))
    }

    /// Returns the keys with which to replace these keys, given newly configured ones. If only the CA
    /// certificates have changed, the new keys begin with what has been fetched so far.
    pub(crate) fn replaced_by(&self, new: &Self) -> Self {
        let (own, other) = (&self.0.shared, &new.0.shared);
        if own.url != other.url {
            return new.clone();
        }
        if own.client == other.client {
            return self.clone();
        }
        let keys = own.state.lock().keys.not_yet_fetched_again();
        other.state.lock().keys = keys;
        new.clone()
    }

    /// Starts the task, unless it runs already.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    pub(crate) fn start(&self) {
        let mut task = self.0.task.lock();
        // A task ends early if its runtime does.
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(tokio::spawn(Arc::clone(&self.0.shared).run()).abort_handle());
        }
    }

    /// Waits until the first fetch has ended.
    pub(crate) async fn first_fetch(&self) {
        self.start();
        let mut ended = self.0.shared.ended.subscribe();
        while self.0.shared.state.lock().keys.is_new() {
            // The sender is in `self`.
            let _ = ended.changed().await;
        }
    }

    /// Returns keys of which at least one may have signed a token with this key id and algorithm. If
    /// the issuer has no such key, it returns no keys. Waits for a fetch if one is due.
    pub(crate) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Arc<Keys>, Unavailable> {
        self.start();
        let mut ended = self.0.shared.ended.subscribe();
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            let lookup = self.0.shared.state.lock().keys.lookup(id, algorithm, Instant::now().into_std());
            match lookup {
                Lookup::Found(keys) => return Ok(keys),
                Lookup::Unknown => return Ok(Arc::default()),
                Lookup::Unavailable => return Err(self.unavailable()),
                Lookup::Fetch => self.0.shared.is_wanted.notify_one(),
            }
            let ended = tokio::time::timeout_at(deadline, ended.changed());
            ended.await.map_err(|_| self.unavailable())?.map_err(|_| self.unavailable())?;
        }
    }

    fn unavailable(&self) -> Unavailable {
        Unavailable(self.problem().map_or_else(|| "there is no response yet".to_owned(), |problem| escaped(&problem)))
    }

    /// Returns the error of the last fetch, if it failed.
    pub(crate) fn problem(&self) -> Option<FetchError> {
        self.0.shared.state.lock().problem.clone()
    }

    /// Returns the numbers of fetches by result, and the age of the keys if there are any.
    pub(crate) fn statistics(&self) -> (BTreeMap<&'static str, u64>, Option<Duration>) {
        let state = self.0.shared.state.lock();
        (state.fetches.clone(), state.keys.age(Instant::now().into_std()))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        loop {
            let next = self.state.lock().keys.next_fetch();
            if let Some(next) = next {
                tokio::select! {
                    () = tokio::time::sleep_until(next.into()) => {}
                    () = self.is_wanted.notified() => {}
                }
            }
            if self.state.lock().keys.begin(Instant::now().into_std()) {
                let fetched = self.client.fetch(&self.url).await;
                self.end(fetched);
                self.ended.send_replace(());
            }
        }
    }

    fn end(&self, fetched: Result<Keys, FetchError>) {
        let now = Instant::now().into_std();
        let mut state = self.state.lock();
        *state.fetches.entry(fetched.as_ref().map_or_else(FetchError::kind, |_| OK)).or_default() += 1;
        state.problem = fetched.as_ref().err().cloned();
        match fetched.map(|keys| state.keys.succeed(keys, now)) {
            Ok(false) => {}
            Ok(true) => tracing::info!(url = %self.url, "fetched the keys of an issuer again"),
            Err(error) => {
                let failure = state.keys.fail(now);
                let has_keys = state.keys.age(now).is_some();
                drop(state);
                self.log(&escaped(&error), failure, has_keys);
            }
        }
    }

    fn log(&self, error: &str, failure: Failure, has_keys: bool) {
        let url = &self.url;
        match failure {
            Failure::First if has_keys => {
                tracing::warn!(%url, error, "cannot fetch the keys of an issuer; the previous keys stay in use for up to 24 h");
            }
            Failure::First => {
                tracing::warn!(%url, error, "cannot fetch the keys of an issuer; its tokens are rejected until a fetch succeeds");
            }
            Failure::Expired => {
                tracing::error!(%url, error, "the keys of an issuer are older than 24 h; its tokens are rejected until a fetch succeeds");
            }
            Failure::Repeated => tracing::debug!(%url, error, "cannot fetch the keys of an issuer"),
        }
    }
}
