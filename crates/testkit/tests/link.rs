//! The faulty link's faults.

use std::time::{Duration, Instant};

use roomcast_testkit::{AfterCut, FaultyLink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Long enough to tell that nothing comes, because here everything else comes at once.
const A_WHILE: Duration = Duration::from_millis(200);

const DEADLINE: Duration = Duration::from_secs(20);

/// A server that sends back what it gets, and a link to it.
async fn echo_behind_a_link() -> FaultyLink {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    FaultyLink::start(&address).await
}

async fn connect(link: &FaultyLink) -> TcpStream {
    TcpStream::connect(link.address()).await.expect("the link accepts, cut or not")
}

async fn read(stream: &mut TcpStream, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    timeout(DEADLINE, stream.read_exact(&mut bytes)).await.expect("something happens")?;
    Ok(bytes)
}

#[tokio::test]
async fn everything_goes_through_with_the_end() {
    let link = echo_behind_a_link().await;
    let mut stream = connect(&link).await;
    let sent: Vec<u8> = (0..2_000_000_u32).map(|index| index as u8).collect();
    let (mut from, mut to) = stream.split();
    let send = async {
        to.write_all(&sent).await?;
        to.shutdown().await
    };
    let mut received = Vec::new();
    let both = async { tokio::try_join!(send, from.read_to_end(&mut received)) };
    timeout(DEADLINE, both).await.expect("it ends").expect("nothing breaks");
    assert_eq!(received, sent);
}

#[tokio::test]
async fn each_direction_has_its_latency() {
    let link = echo_behind_a_link().await;
    let mut stream = connect(&link).await;
    link.set_latency(Duration::from_millis(100), Duration::from_millis(150));
    let started = Instant::now();
    stream.write_all(b"slow").await.expect("it is open");
    assert_eq!(read(&mut stream, 4).await.expect("it is open"), b"slow");
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_cut_holds_everything_and_closes_nothing() {
    let link = echo_behind_a_link().await;
    let mut old = connect(&link).await;
    old.write_all(b"a").await.expect("it is open");
    assert_eq!(read(&mut old, 1).await.expect("it is open"), b"a");

    link.cut();
    let mut new = connect(&link).await;
    for stream in [&mut old, &mut new] {
        stream.write_all(b"b").await.expect("it is open");
        assert!(timeout(A_WHILE, stream.read_u8()).await.is_err(), "something came through");
    }
    link.heal(AfterCut::GoOn);
    for stream in [&mut old, &mut new] {
        assert_eq!(read(stream, 1).await.expect("it is open"), b"b");
    }
}

#[tokio::test]
async fn connections_from_before_a_heal_can_be_reset_and_new_ones_work() {
    let link = echo_behind_a_link().await;
    let mut old = connect(&link).await;
    old.write_all(b"a").await.expect("it is open");
    assert_eq!(read(&mut old, 1).await.expect("it is open"), b"a");
    link.cut();
    link.heal(AfterCut::Reset);
    let error = read(&mut old, 1).await.expect_err("it is reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut new = connect(&link).await;
    new.write_all(b"b").await.expect("it is open");
    assert_eq!(read(&mut new, 1).await.expect("it is open"), b"b");
}

#[tokio::test]
async fn what_a_cut_link_holds_is_bounded() {
    let link = echo_behind_a_link().await;
    let mut stream = connect(&link).await;
    stream.write_all(b"a").await.expect("it is open");
    assert_eq!(read(&mut stream, 1).await.expect("it is open"), b"a");
    link.cut();
    let too_much = vec![0; 64 * 1024 * 1024];
    let written = timeout(DEADLINE, stream.write_all(&too_much)).await.expect("something happens");
    assert!(written.is_err(), "64 MiB found room");
}
