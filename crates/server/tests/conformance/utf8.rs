//! Text is UTF-8 (RFC 6455, sections 5.6 and 8.1; RFC 3629).
//!
//! The texts of group 6.5 and later are those of Markus Kuhn's "UTF-8 decoder capability and stress test".

use crate::case::{Case, NOT_UTF8, case};
use crate::frame::{continuation, in_fragments, ping, pong, text};

/// "κόσμε" with U+1F79, in characters of two and three bytes.
const COSMOS: &[u8] = b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5";
/// Where its characters end.
const ENDS: [usize; 5] = [2, 5, 7, 9, 11];

const MIXED: &str = "Hello-µ@ßöäüàá-UTF-8!!";

pub(crate) fn cases() -> Vec<Case> {
    [fragments(), broken_text(), whole_texts()].concat()
}

fn fragments() -> Vec<Case> {
    let empty = || continuation("");
    let (start, end) = MIXED.split_at("Hello-µ@ßöä".len());
    vec![
        case("6.1.1", "5.6", "empty text").send([text("")]).answers([text("")]),
        case("6.1.2", "5.4", "three empty fragments")
            .send([text("").unfinished(), empty().unfinished(), empty()])
            .answers([text("")]),
        case("6.1.3", "5.4", "a fragment between two empty ones")
            .send([text("").unfinished(), continuation("middle").unfinished(), empty()])
            .answers([text("middle")]),
        case("6.2.1", "5.6", "text of one- and two-byte characters").send([text(MIXED)]).answers([text(MIXED)]),
        case("6.2.2", "5.6", "two fragments, cut between two characters")
            .send([text(start).unfinished(), continuation(end)])
            .answers([text(MIXED)]),
        case("6.2.3", "5.6", "fragments of one byte").send(in_fragments(&text(MIXED), 1)).answers([text(MIXED)]),
        case("6.2.4", "5.6", "fragments of one byte, in characters of up to three")
            .send(in_fragments(&text(COSMOS), 1))
            .answers([text(COSMOS)]),
    ]
}

/// A server may fail the connection at the first wrong byte, or, as this one does, once the message is whole.
fn broken_text() -> Vec<Case> {
    let surrogate = [COSMOS, b"\xED\xA0\x80", b"edited"].concat();
    // U+110000: the byte after 0xF4 is the first that is wrong.
    let parts: [&[u8]; 3] = [COSMOS, b"\xF4\x90\x80\x80", b"edited"];
    let too_large = parts.concat();
    let [whole, cut] = [[parts[0].len(), parts[0].len() + parts[1].len()], [12, 13]];
    let in_frames = |[first, second]: [usize; 2], row: Case| {
        let [start, middle, end] = [&too_large[..first], &too_large[first..second], &too_large[second..]];
        row.send([text(start).unfinished(), ping("accepted so far")])
            .answers([pong("accepted so far")])
            .send_frame_by_frame([continuation(middle).unfinished(), continuation(end)])
            .fails_with(NOT_UTF8)
    };
    let in_writes = |[first, second]: [usize; 2], row: Case| {
        let mut start = text(&too_large).masked();
        let header = start.len() - too_large.len();
        let end = start.split_off(header + second);
        let middle = start.split_off(header + first);
        row.write([start, middle, end]).fails_with(NOT_UTF8)
    };
    vec![
        case("6.3.1", "8.1", "a surrogate").send([text(&surrogate)]).fails_with(NOT_UTF8),
        case("6.3.2", "8.1", "a surrogate, in fragments of one byte")
            .send(in_fragments(&text(&surrogate), 1))
            .fails_with(NOT_UTF8),
        in_frames(whole, case("6.4.1", "8.1", "U+110000, in the second of three fragments")),
        in_frames(cut, case("6.4.2", "8.1", "U+110000, cut behind its first wrong byte")),
        in_writes(whole, case("6.4.3", "8.1", "U+110000, in the second of three writes")),
        in_writes(cut, case("6.4.4", "8.1", "U+110000, in writes, cut behind its first wrong byte")),
    ]
}

/// A text and whether it is UTF-8.
struct Text {
    bytes: Vec<u8>,
    is_utf8: bool,
}

fn valid(bytes: impl AsRef<[u8]>) -> Text {
    Text { bytes: bytes.as_ref().to_vec(), is_utf8: true }
}

fn invalid(bytes: impl AsRef<[u8]>) -> Text {
    Text { bytes: bytes.as_ref().to_vec(), is_utf8: false }
}

fn group(number: u8, name: &str, texts: impl IntoIterator<Item = Text>) -> Vec<Case> {
    let row = |(at, Text { bytes, is_utf8 }): (usize, Text)| {
        let row = case(format!("6.{number}.{}", at + 1), "8.1", format!("{name}: {}", bytes.escape_ascii()));
        let row = row.send([text(&bytes)]);
        if is_utf8 { row.answers([text(bytes)]) } else { row.fails_with(NOT_UTF8) }
    };
    texts.into_iter().enumerate().map(row).collect()
}

fn whole_texts() -> Vec<Case> {
    [lengths(), incomplete(), overlong(), code_points()].concat()
}

fn lengths() -> Vec<Case> {
    let prefix = |len: usize| Text { bytes: COSMOS[..len].to_vec(), is_utf8: ENDS.contains(&len) };
    [
        group(5, "valid", ["hello$world", "hello¢world", "hello€world", "hello𤭢world", "κ\u{1F79}σμε"].map(valid)),
        group(6, "a prefix of valid text", (1..=COSMOS.len()).map(prefix)),
        group(7, "the first of a length", ["\0", "\u{80}", "\u{800}", "\u{10000}"].map(valid)),
        group(8, "the first of a length", [invalid(b"\xF8\x88\x80\x80\x80"), invalid(b"\xFC\x84\x80\x80\x80\x80")]),
        group(9, "the last of a length", ["\u{7F}", "\u{7FF}", "\u{FFFF}", "\u{10FFFF}"].map(valid)),
        group(
            10,
            "the last of a length",
            [invalid(b"\xF7\xBF\xBF\xBF"), invalid(b"\xFB\xBF\xBF\xBF\xBF"), invalid(b"\xFD\xBF\xBF\xBF\xBF\xBF")],
        ),
        group(
            11,
            "a boundary",
            [
                valid("\u{D7FF}"),
                valid("\u{E000}"),
                valid("\u{FFFD}"),
                valid("\u{10FFFF}"),
                invalid(b"\xF4\x90\x80\x80"),
            ],
        ),
    ]
    .concat()
}

fn incomplete() -> Vec<Case> {
    const WITHOUT_LAST_BYTE: [&[u8]; 10] = [
        b"\xC0",
        b"\xE0\x80",
        b"\xF0\x80\x80",
        b"\xF8\x80\x80\x80",
        b"\xFC\x80\x80\x80\x80",
        b"\xDF",
        b"\xEF\xBF",
        b"\xF7\xBF\xBF",
        b"\xFB\xBF\xBF\xBF",
        b"\xFD\xBF\xBF\xBF\xBF",
    ];
    let first_continuations = [b"\x80".as_slice(), b"\xBF"].map(invalid);
    let alternating = (2..=6).map(|len| invalid(b"\x80\xBF".repeat(3).split_at(len).0));
    let all_continuations = (0x80..0xBF).collect::<Vec<u8>>();
    let lonely = |starts: std::ops::Range<u8>| invalid(starts.flat_map(|start| [start, b' ']).collect::<Vec<u8>>());
    [
        group(
            12,
            "continuation bytes",
            first_continuations.into_iter().chain(alternating).chain([invalid(all_continuations)]),
        ),
        group(13, "lonely start bytes", [0xC0..0xDF, 0xE0..0xEF, 0xF0..0xF7, 0xF8..0xFB, 0xFC..0xFD].map(lonely)),
        group(14, "without its last byte", WITHOUT_LAST_BYTE.map(invalid)),
        group(15, "all of these", [invalid(WITHOUT_LAST_BYTE.concat())]),
        group(16, "impossible bytes", [b"\xFE".as_slice(), b"\xFF", b"\xFE\xFE\xFF\xFF"].map(invalid)),
    ]
    .concat()
}

fn overlong() -> Vec<Case> {
    const SLASH: [&[u8]; 5] =
        [b"\xC0\xAF", b"\xE0\x80\xAF", b"\xF0\x80\x80\xAF", b"\xF8\x80\x80\x80\xAF", b"\xFC\x80\x80\x80\x80\xAF"];
    const LONGEST: [&[u8]; 5] =
        [b"\xC1\xBF", b"\xE0\x9F\xBF", b"\xF0\x8F\xBF\xBF", b"\xF8\x87\xBF\xBF\xBF", b"\xFC\x83\xBF\xBF\xBF\xBF"];
    const NUL: [&[u8]; 5] =
        [b"\xC0\x80", b"\xE0\x80\x80", b"\xF0\x80\x80\x80", b"\xF8\x80\x80\x80\x80", b"\xFC\x80\x80\x80\x80\x80"];
    [
        group(17, "an overlong slash", SLASH.map(invalid)),
        group(18, "the largest that is overlong", LONGEST.map(invalid)),
        group(19, "an overlong NUL", NUL.map(invalid)),
    ]
    .concat()
}

fn code_points() -> Vec<Case> {
    // Each is a code point from U+D800 to U+DFFF, encoded as if it were a character.
    const SURROGATES: [&[u8]; 7] = [
        b"\xED\xA0\x80",
        b"\xED\xAD\xBF",
        b"\xED\xAE\x80",
        b"\xED\xAF\xBF",
        b"\xED\xB0\x80",
        b"\xED\xBE\x80",
        b"\xED\xBF\xBF",
    ];
    let [high @ .., low_first, _, low_last] = SURROGATES;
    let pairs = high.into_iter().flat_map(|high| [low_first, low_last].map(|low| invalid([high, low].concat())));
    let of_each_plane = (0..=16).flat_map(|plane| [plane << 16 | 0xFFFE, plane << 16 | 0xFFFF]);
    let character = |code_point| valid(char::from_u32(code_point).expect("no surrogate").to_string());
    [
        group(20, "a surrogate", SURROGATES.map(invalid)),
        group(21, "a pair of surrogates", pairs),
        group(22, "a noncharacter, which is valid", of_each_plane.map(character)),
        group(23, "a special, which is valid", (0xFFF9..=0xFFFF).map(character)),
    ]
    .concat()
}
