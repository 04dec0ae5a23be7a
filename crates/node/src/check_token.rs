//! `check --token`: whether a node accepts a token, and what its client may do.

use std::time::SystemTime;

use clap::{Arg, ArgMatches};
use roomcast::Right;
use roomcast_auth::{JwtAuthorizer, Token};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;

use crate::config::unreadable;
use crate::permission::Permission;

const TOKEN: &str = "token";
const ROOM: &str = "room";
const CALL: &str = "call";
const RIGHT: &str = "do";

/// The flags that the command takes in addition to the options of a node.
pub(crate) fn arguments() -> [Arg; 4] {
    let question = |id: &'static str| Arg::new(id).long(id).help_heading("Check a token");
    [
        question(TOKEN)
            .value_name("FILE")
            .help("File with a token: print whether the node accepts it, instead of the options"),
        question(ROOM)
            .value_name("ROOM")
            .conflicts_with(CALL)
            .help("Explain whether the client of the token, or an anonymous client, has a right on this room"),
        question(CALL)
            .value_name("METHOD")
            .help("Explain whether the client of the token, or an anonymous client, has a right on this method"),
        question(RIGHT)
            .value_name("RIGHT")
            .value_parser(parse_right)
            .help("The right: join (the default), publish, members or history on a room; call (the default), attach or cancel on a method"),
    ]
}

/// What to check. It never contains a token in its errors.
#[derive(Debug)]
pub(crate) struct Question {
    /// `None`: an anonymous client.
    token: Option<String>,
    /// `None`: only whether the token is accepted.
    asked: Option<Permission>,
}

impl Question {
    /// Returns what the arguments ask, or `None` if they do not ask about a token or a right.
    pub(crate) fn of(arguments: &ArgMatches) -> Result<Option<Self>, String> {
        let text = |id| arguments.get_one::<String>(id);
        let right = arguments.get_one::<Right>(RIGHT).copied();
        let [room, call] = [ROOM, CALL].map(|id| text(id).map(String::as_str));
        let asked = Permission::of("--", room, call, right)?;
        let token = text(TOKEN).map(|path| read_token(path)).transpose()?;
        Ok((token.is_some() || asked.is_some()).then_some(Self { token, asked }))
    }

    /// Prints the answer as text. The second value is whether the token is accepted, and the right granted.
    pub(crate) async fn answer(&self, authorizer: &JwtAuthorizer) -> (String, bool) {
        let token = self.token.as_deref();
        if let Some(Permission { right, name }) = &self.asked {
            let explanation = authorizer.explain(token, *right, name).await;
            return (explanation.to_string(), explanation.is_granted());
        }
        match authorizer.verify(token.unwrap_or_default()).await {
            Ok(token) => (describe(&token), true),
            Err(error) => (format!("The client cannot connect: {error}\n"), false),
        }
    }
}

fn describe(token: &Token) -> String {
    let expires = token.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
    let roles = if token.roles.is_empty() { "none".to_owned() } else { format!("{:?}", token.roles) };
    format!(
        "The token is valid for {} s.\nClient: user {:?} of issuer {:?}\nRoles: {roles}\n",
        expires.as_secs(),
        &*token.user,
        token.issuer
    )
}

/// The path may be a token that was passed by mistake, so the error does not contain it.
fn read_token(path: &str) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => {
            let hint = "pass the path of a file that contains the token, not the token itself";
            Err(format!("cannot read the file of --token: {}; {hint}", unreadable(&error)))
        }
    }
}

fn parse_right(text: &str) -> Result<Right, String> {
    Right::deserialize(text.into_deserializer()).map_err(|error: Error| error.to_string())
}
