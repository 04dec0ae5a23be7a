//! The story of one call of `roomcast.v1`, as both of its ends see it.

use bytes::Bytes;
use roomcast_protocol::CallKey;
use roomcast_protocol::v1::{Call, Code, Error, Side, Unfinished};

/// How a call ended for its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Final(Result<Bytes, Error>),
    /// The connection ended first.
    Unfinished(Unfinished),
}

/// How a call ended for its callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Executed {
    Refused,
    Finished {
        is_cancelled: bool,
    },
    /// The connection ended first.
    Ended,
}

/// One call's story. Its number in [`Pair::stories`] is its payload.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) caller: Side,
    pub(crate) call: Call,
    /// The call's key in the caller's table.
    pub(crate) key: CallKey,
    /// The Items that the caller has ever accepted, and those of them that the callee has heard of.
    pub(crate) granted: u64,
    pub(crate) heard: u64,
    /// Whether the callee has seen unlimited credit.
    pub(crate) is_unlimited: bool,
    pub(crate) items_sent: u64,
    pub(crate) items_received: u64,
    pub(crate) is_cancelled: bool,
    pub(crate) is_detached: bool,
    pub(crate) has_begun_to_leave: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) executed: Option<Executed>,
}

impl Story {
    pub(crate) fn new(caller: Side, call: Call, key: CallKey) -> Self {
        let granted = u64::from(call.credit);
        Self {
            caller,
            call,
            key,
            granted,
            heard: granted,
            is_unlimited: false,
            items_sent: 0,
            items_received: 0,
            is_cancelled: false,
            is_detached: false,
            has_begun_to_leave: false,
            outcome: None,
            executed: None,
        }
    }

    /// The two ends agree on what became of the call, as far as the wire let them.
    #[track_caller]
    pub(crate) fn assert_outcome(&self, number: usize) {
        let story = self;
        match story.outcome.as_ref().unwrap_or_else(|| panic!("the caller never learns of the end of {story:?}")) {
            Outcome::Final(result) => match story.executed {
                Some(Executed::Refused) => assert!(result.is_err(), "{story:?}"),
                Some(Executed::Finished { is_cancelled: true }) => {
                    assert_eq!(result.as_ref().expect_err("it was cancelled").code, Code::CANCELLED, "{story:?}");
                }
                Some(Executed::Finished { is_cancelled: false }) => {
                    assert!([result_of(number, true), result_of(number, false)].contains(result), "{story:?}");
                    assert!(
                        story.is_cancelled || story.items_received == story.items_sent,
                        "Items are lost: {story:?}"
                    );
                }
                Some(Executed::Ended) | None => panic!("nobody ended {story:?}"),
            },
            Outcome::Unfinished(Unfinished::NotSent) => {
                assert!(!story.has_begun_to_leave && story.executed.is_none(), "{story:?}");
            }
            Outcome::Unfinished(Unfinished::MaybeExecuted) => assert!(story.has_begun_to_leave, "{story:?}"),
            Outcome::Unfinished(Unfinished::Detached { stream, items }) => {
                assert!(story.is_detached && **stream == format!("stream {number}"), "{story:?}");
                assert!(*items >= story.items_received && *items <= story.items_sent, "{story:?}");
            }
        }
    }
}

/// The result of the work of a call.
pub(crate) fn result_of(number: usize, fails: bool) -> Result<Bytes, Error> {
    match fails {
        true => Err(Error::new(Code(2), "the work failed")),
        false => Ok(format!("result of {number}").into()),
    }
}
