//! A right on a room or on a method, about which an operator asks.

use roomcast::{Name, Names, Right, RoomName};

/// How the names of built-in methods begin. Grants on calls do not apply to them, and no backend
/// answers them.
pub(crate) const BUILT_IN: [&str; 2] = ["rooms/", "auth/"];

/// A right on a room or on a method.
#[derive(Debug)]
pub(crate) struct Permission {
    pub(crate) right: Right,
    pub(crate) name: String,
}

impl Permission {
    /// Returns what is asked with a room, a method (`call`) and a right (`do`), or `None` if nothing is. Without a
    /// right, this is `join` on a room and `call` on a method.
    ///
    /// # Errors
    /// Returns what is wrong. `prefix` precedes the names of the three parameters, such as `--`.
    pub(crate) fn of(
        prefix: &str,
        room: Option<&str>,
        call: Option<&str>,
        right: Option<Right>,
    ) -> Result<Option<Self>, String> {
        let (right, name, kind, names) = match (room, call) {
            (None, None) if right.is_some() => {
                return Err(format!("{prefix}do needs {prefix}room ROOM or {prefix}call METHOD"));
            }
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(format!("name either {prefix}room or {prefix}call, not both")),
            (Some(room), None) => (right.unwrap_or(Right::Join), check_room(prefix, room)?, "rooms", Names::Rooms),
            (None, Some(call)) => (right.unwrap_or(Right::Call), check_method(prefix, call)?, "methods", Names::Calls),
        };
        if right.names() != names {
            return Err(format!("{prefix}do: {right} is not a right on {kind} such as {name:?}"));
        }
        Ok(Some(Self { right, name }))
    }
}

fn check_room(prefix: &str, room: &str) -> Result<String, String> {
    let room = RoomName::new(room).map_err(|error| format!("{prefix}room: {error}"))?;
    Ok(room.to_string())
}

fn check_method(prefix: &str, method: &str) -> Result<String, String> {
    if BUILT_IN.iter().any(|begin| method.starts_with(begin)) {
        return Err(format!(
            "{prefix}call: {method:?} is a built-in method, to which rights on calls do not apply; for rooms/…, use {prefix}room ROOM \
             {prefix}do RIGHT"
        ));
    }
    let method = Name::new(method).map_err(|error| format!("{prefix}call: {error}"))?;
    Ok(method.to_string())
}
