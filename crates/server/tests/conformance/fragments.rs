//! Messages in fragments (RFC 6455, section 5.4).

use crate::case::{Case, PROTOCOL_ERROR, case};
use crate::frame::{Frame, continuation, ping, pong, text};

pub(crate) fn cases() -> Vec<Case> {
    [control_frames(), messages(), nothing_to_continue()].concat()
}

fn control_frames() -> Vec<Case> {
    let rest = continuation("fragment2");
    vec![
        case("5.1", "5.4", "a ping in two fragments")
            .send([ping("fragment1").unfinished(), rest.clone()])
            .fails_with(PROTOCOL_ERROR),
        case("5.2", "5.4", "a pong in two fragments")
            .send([pong("fragment1").unfinished(), rest])
            .fails_with(PROTOCOL_ERROR),
    ]
}

fn messages() -> Vec<Case> {
    let two = [text("fragment1").unfinished(), continuation("fragment2")];
    let [first, last] = two.clone();
    let with_ping = [first, ping("ping payload"), last];
    let whole = [text("fragment1fragment2")];
    let pong_and_whole = [pong("ping payload"), text("fragment1fragment2")];
    let start = || {
        let fragments = [text("fragment1").unfinished(), continuation("fragment2").unfinished()];
        fragments.into_iter().chain([ping("pongme 1!")]).collect::<Vec<_>>()
    };
    let rest = || {
        let fragments = [continuation("fragment3").unfinished(), continuation("fragment4").unfinished()];
        fragments.into_iter().chain([ping("pongme 2!"), continuation("fragment5")]).collect::<Vec<_>>()
    };
    let end = || [pong("pongme 2!"), text("fragment1fragment2fragment3fragment4fragment5")];
    vec![
        case("5.3", "5.4", "text in two fragments").send(&two).answers(whole.clone()),
        case("5.4", "5.4", "text in two fragments, frame by frame").send_frame_by_frame(&two).answers(whole.clone()),
        case("5.5", "5.4", "text in two fragments, byte by byte").send_in_pieces(1, &two).answers(whole),
        case("5.6", "5.4", "a ping between two fragments").send(&with_ping).answers(pong_and_whole.clone()),
        case("5.7", "5.4", "a ping between two fragments, frame by frame")
            .send_frame_by_frame(&with_ping)
            .answers(pong_and_whole.clone()),
        case("5.8", "5.4", "a ping between two fragments, byte by byte")
            .send_in_pieces(1, &with_ping)
            .answers(pong_and_whole),
        case("5.18", "5.4", "a second fragment that is text again")
            .send([text("fragment1").unfinished(), text("fragment2")])
            .fails_with(PROTOCOL_ERROR),
        case("5.19", "5.4", "two pings among five fragments, the first answered before the message ends")
            .send(start())
            .answers([pong("pongme 1!")])
            .send(rest())
            .answers(end()),
        case("5.20", "5.4", "two pings among five fragments, frame by frame")
            .send_frame_by_frame(start())
            .answers([pong("pongme 1!")])
            .send_frame_by_frame(rest())
            .answers(end()),
    ]
}

fn nothing_to_continue() -> Vec<Case> {
    let mut cases = Vec::new();
    for (numbers, end, stray) in [
        (["5.9", "5.10", "5.11"], "finished", continuation("non-continuation payload")),
        (["5.12", "5.13", "5.14"], "unfinished", continuation("non-continuation payload").unfinished()),
    ] {
        let frames = [stray, text("Hello, world!")];
        let row =
            |at: usize, how: &str| case(numbers[at], "5.4", format!("a {end} continuation of nothing, then text{how}"));
        cases.extend([
            row(0, "").send(&frames).fails_with(PROTOCOL_ERROR),
            row(1, ", frame by frame").send_frame_by_frame(&frames).fails_with(PROTOCOL_ERROR),
            row(2, ", byte by byte").send_in_pieces(1, &frames).fails_with(PROTOCOL_ERROR),
        ]);
    }
    let twice = |stray: Frame| {
        let once = [stray, text("fragment2").unfinished(), continuation("fragment3")];
        [once.clone(), once].concat()
    };
    cases.extend([
        case("5.15", "5.4", "text in two fragments, then an unfinished continuation of nothing, then text")
            .send([
                text("fragment1").unfinished(),
                continuation("fragment2"),
                continuation("fragment3").unfinished(),
                text("fragment4"),
            ])
            .answers([text("fragment1fragment2")])
            .fails_with(PROTOCOL_ERROR),
        case("5.16", "5.4", "an unfinished continuation of nothing before text in two fragments, twice")
            .send(twice(continuation("fragment1").unfinished()))
            .fails_with(PROTOCOL_ERROR),
        case("5.17", "5.4", "a finished continuation of nothing before text in two fragments, twice")
            .send(twice(continuation("fragment1")))
            .fails_with(PROTOCOL_ERROR),
    ]);
    cases
}
