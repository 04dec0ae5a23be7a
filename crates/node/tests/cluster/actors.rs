//! Those who use the cluster during a test: publishers, members, and callers who look only at their node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use roomcast_testkit::{Client, ClientError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::board::{Board, EVENT, room_name};

/// How long publishers wait for the last answers.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// Becomes true when an actor shall end.
pub(crate) type Stop = watch::Receiver<bool>;

/// Waits until an actor shall end.
async fn stopped(stop: &mut Stop) {
    // Whoever can't be told any more shall end, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A client that has joined its room.
pub(crate) async fn join(url: &str, room: usize) -> Client {
    let mut client = Client::connect(url).await.expect("the node serves");
    let answer = client.call_text(&format!("rooms/join/{}", room_name(room)), "").await.expect("an answer");
    assert_eq!(answer, "");
    client
}

/// Writes down what a member gets until it shall end, or its connection ends.
pub(crate) async fn be_member(board: Arc<Board>, member: usize, mut client: Client, mut stop: Stop) {
    loop {
        let event = tokio::select! {
            event = client.event() => event,
            () = stopped(&mut stop) => return,
        };
        match event {
            Ok(event) => {
                assert_eq!(event.name, EVENT);
                board.receive(member, &event.payload);
            }
            // Nobody publishes for so long only during a fault.
            Err(ClientError::TimedOut) => {}
            Err(_) => return board.left(member),
        }
    }
}

/// Publishes to one room after another at a pace, without waiting for answers, until it shall end, or its
/// connection ends.
pub(crate) async fn publish_at_a_pace(
    board: Arc<Board>,
    publisher: usize,
    mut client: Client,
    rooms: usize,
    pace: Duration,
    mut stop: Stop,
) {
    let mut next = interval(pace);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut room = publisher % rooms;
    let mut waiting = HashMap::new();
    loop {
        tokio::select! {
            _ = next.tick() => {
                let (number, payload) = board.send(publisher, room);
                let method = format!("rooms/publish/{}/{EVENT}", room_name(room));
                let Ok(call) = client.start(&method, payload).await else { return };
                waiting.insert(call, number);
                room = (room + 1) % rooms;
            }
            answer = client.next_answer() => match answer {
                Ok((call, answer)) => {
                    let number = waiting.remove(&call).expect("each call is answered once");
                    board.answered((publisher, number), &answer);
                }
                Err(ClientError::TimedOut) => {}
                Err(_) => return,
            },
            () = stopped(&mut stop) => break,
        }
    }
    // What is not answered in time stays unknown.
    let _ = timeout(ANSWER_TIME, async {
        while !waiting.is_empty() {
            let Ok((call, answer)) = client.next_answer().await else { return };
            let number = waiting.remove(&call).expect("each call is answered once");
            board.answered((publisher, number), &answer);
        }
    })
    .await;
}

/// What a node's callers saw.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// How long each call took.
    pub(crate) latencies: Vec<Duration>,
    /// How long it took until a call that was reset had ended.
    pub(crate) cancellations: Vec<Duration>,
    /// Calls without the right answer.
    pub(crate) failures: Vec<String>,
}

/// Calls `echo` all the time.
pub(crate) async fn call_echo(calls: Arc<Mutex<Calls>>, url: String, stop: Stop) {
    const PACE: Duration = Duration::from_millis(20);
    let mut client = Client::connect(&url).await.expect("the node serves");
    let mut next = interval(PACE);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        next.tick().await;
        if *stop.borrow() {
            return;
        }
        let started = Instant::now();
        let answer = client.call_text("echo", number.to_string()).await;
        let took = started.elapsed();
        match answer {
            Ok(answer) if answer == number.to_string() => calls.lock().latencies.push(took),
            Ok(answer) => calls.lock().failures.push(format!("echo of {number}: {answer}")),
            Err(error) => return calls.lock().failures.push(format!("echo: {error}")),
        }
    }
}

/// Starts and resets calls all the time, the only long ones of its node.
pub(crate) async fn cancel_calls(calls: Arc<Mutex<Calls>>, url: String, stop: Stop) {
    const PACE: Duration = Duration::from_millis(100);
    let mut client = Client::connect(&url).await.expect("the node serves");
    let mut next = interval(PACE);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        next.tick().await;
        match cancel_a_call(&mut client).await {
            Ok(took) => calls.lock().cancellations.push(took),
            Err(error) => return calls.lock().failures.push(format!("cancel: {error}")),
        }
    }
}

async fn cancel_a_call(client: &mut Client) -> Result<Duration, ClientError> {
    let call = client.start("long", "").await?;
    until_running(client, "1").await?;
    let started = Instant::now();
    client.reset(call).await?;
    until_running(client, "0").await?;
    Ok(started.elapsed())
}

/// Waits until the node says that so many long calls run.
async fn until_running(client: &mut Client, number: &str) -> Result<(), ClientError> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let mut look = interval(Duration::from_millis(10));
    timeout(PATIENCE, async {
        while client.call_text("running", "").await? != number {
            look.tick().await;
        }
        Ok(())
    })
    .await
    .unwrap_or(Err(ClientError::TimedOut))
}
