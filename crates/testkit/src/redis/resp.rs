//! A minimal Redis client: one command and one reply, over a Unix socket. Fixtures therefore need
//! no TCP port, no TLS, and no library whose behaviour under faults is being tested.

use std::io::{self, Error, ErrorKind};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A running server replies within this time. A stopped server does not.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Sends commands on one connection and returns the reply to the last one: its text, or the items
/// of an array, one in each line. The error is Redis' own, or that of the connection.
pub(crate) async fn command(socket: &Path, commands: &[&[&str]]) -> Result<String, String> {
    let answer = tokio::time::timeout(ANSWER_TIME, exchange(socket, commands)).await;
    answer.map_err(|_| format!("no answer within {ANSWER_TIME:?}"))?.map_err(|error| error.to_string())?
}

async fn exchange(socket: &Path, commands: &[&[&str]]) -> io::Result<Result<String, String>> {
    let mut stream = BufReader::new(UnixStream::connect(socket).await?);
    let mut answer = Ok(String::new());
    for command in commands {
        stream.write_all(&encode(command)).await?;
        answer = read_answer(&mut stream).await?;
        if answer.is_err() {
            break;
        }
    }
    Ok(answer)
}

fn encode(command: &[&str]) -> Vec<u8> {
    let arguments = command.iter().map(|argument| format!("${}\r\n{argument}\r\n", argument.len()));
    format!("*{}\r\n{}", command.len(), arguments.collect::<String>()).into_bytes()
}

async fn read_answer(stream: &mut BufReader<UnixStream>) -> io::Result<Result<String, String>> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let length = || rest.parse::<i64>().map_err(|_| Error::other(format!("no length in {line:?}")));
    match kind {
        "+" | ":" => Ok(Ok(rest.to_owned())),
        "-" => Ok(Err(rest.to_owned())),
        "$" => {
            // -1 means that there is no value.
            let Ok(length) = usize::try_from(length()?) else { return Ok(Ok(String::new())) };
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes).await?;
            Ok(Ok(String::from_utf8_lossy(&bytes[..length]).into_owned()))
        }
        "*" => {
            let mut items = Vec::new();
            for _ in 0..length()? {
                // An error within an array is treated as text.
                items.push(Box::pin(read_answer(stream)).await?.unwrap_or_else(|error| error));
            }
            Ok(Ok(items.join("\n")))
        }
        _ => Err(Error::other(format!("no answer of Redis: {line:?}"))),
    }
}
