//! The methods that can be sent to a backend. No I/O.

/// How the names of hooks begin. A backend never gets a call of a method with a segment that begins with
/// it, because a client could otherwise forge a hook, also one whose URL continues the backend's.
pub(crate) const HOOK_PREFIX: &str = "roomcast.";

/// Returns whether a client's call of this method can be sent to a backend. The name becomes a part
/// of the URL's path, so it consists of segments that have the same meaning everywhere.
pub(crate) fn can_be_sent(method: &str) -> bool {
    let is_plain = |char: u8| char.is_ascii_alphanumeric() || matches!(char, b'_' | b'.' | b'-');
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain);
    // Some servers ignore the case of paths.
    let is_hook =
        |segment: &str| segment.get(..HOOK_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(HOOK_PREFIX));
    method.split('/').all(|segment| is_segment(segment) && !is_hook(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_a_path_of_plain_segments() {
        for method in ["chat.send", "orders/7/cancel", "a", "...", "A_b-1", "a/.b"] {
            assert!(can_be_sent(method), "{method}");
        }
        for method in
            ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a:b", "a?b", "a#b", "a%2fb", "ä", "a b"]
        {
            assert!(!can_be_sent(method), "{method:?}");
        }
        for method in ["roomcast.connect", "hooks/roomcast.cancel", "Roomcast.Events", "a/ROOMCAST.x/b"] {
            assert!(!can_be_sent(method), "{method}");
        }
        assert!(can_be_sent("roomcasts") && can_be_sent("chat/my.roomcast.x"));
    }
}
