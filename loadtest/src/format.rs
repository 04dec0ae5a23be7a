//! Numbers as people read them, and texts from outside made safe to show.

use std::time::Duration;

/// A time given in microseconds: `850 µs`, `12.3 ms`, `1.20 s`.
pub(crate) fn time(micros: f64) -> String {
    // What would be rounded to 1000 belongs to the next unit.
    if micros < 999.5 {
        let digits = if micros.fract() == 0.0 { format!("{micros:.0}") } else { three_digits(micros) };
        format!("{digits} µs")
    } else if micros < 999_500.0 {
        format!("{} ms", three_digits(micros / 1e3))
    } else {
        format!("{} s", three_digits(micros / 1e6))
    }
}

/// How long a run took: `5.2s`, `1h 30m`. Negative in the ramp.
pub(crate) fn elapsed(seconds: f64) -> String {
    // Tenths matter for seconds only.
    if seconds.abs() < 59.95 {
        return format!("{}s", (seconds * 10.0).round() / 10.0);
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    format!("{sign}{}", humantime::format_duration(Duration::from_secs(seconds.abs().round() as u64)))
}

/// `1,234,567`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// `1,234/s`, `12.3/s`.
pub(crate) fn per_second(rate: f64) -> String {
    let number = if rate >= 99.95 { count(rate.round() as u64) } else { three_digits(rate) };
    format!("{number}/s")
}

/// `21.3 KiB`.
pub(crate) fn bytes(bytes: f64) -> String {
    let (size, unit) = byte_unit(bytes);
    let number = bytes / size;
    if size == 1.0 { format!("{number:.0} {unit}") } else { format!("{} {unit}", three_digits(number)) }
}

/// The largest unit that is not larger than `bytes`.
pub(crate) fn byte_unit(bytes: f64) -> (f64, &'static str) {
    match bytes.abs() {
        large if large >= 1024_f64.powi(3) => (1024_f64.powi(3), "GiB"),
        large if large >= 1024_f64.powi(2) => (1024_f64.powi(2), "MiB"),
        large if large >= 1024.0 => (1024.0, "KiB"),
        _ => (1.0, "B"),
    }
}

/// `93 %` for 0.93.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// `12k`, `1.5M`: for axes, where there is no room for more.
pub(crate) fn short(number: f64) -> String {
    match number.abs() {
        large if large >= 1e9 => format!("{}G", plain(number / 1e9)),
        large if large >= 1e6 => format!("{}M", plain(number / 1e6)),
        large if large >= 1e3 => format!("{}k", plain(number / 1e3)),
        _ => plain(number),
    }
}

/// Without trailing zeros, and without what binary fractions add.
pub(crate) fn plain(number: f64) -> String {
    ((number * 1e6).round() / 1e6).to_string()
}

/// Without control characters: room names and errors come from outside and must not move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// As text or as an attribute's value of HTML and SVG.
pub(crate) fn escaped(text: &str) -> String {
    let text = printable(text).replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn three_digits(number: f64) -> String {
    match number.abs() {
        large if large >= 99.95 => format!("{number:.0}"),
        large if large >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_unit_in_which_it_is_short() {
        assert_eq!(
            [850.0, 2.126, 12_345.0, 999_900.0, 75e6].map(time),
            ["850 µs", "2.13 µs", "12.3 ms", "1.00 s", "75.0 s"]
        );
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 12.34, 99.99, 12_345.6].map(per_second), ["0.00/s", "12.3/s", "100/s", "12,346/s"]);
        assert_eq!([100.0, 21_811.0, 3e9].map(bytes), ["100 B", "21.3 KiB", "2.79 GiB"]);
        assert_eq!([0.5, 15_000.0, 2.5e6].map(short), ["0.5", "15k", "2.5M"]);
        assert_eq!([-20.0, 0.0, 2.5, 5400.4].map(elapsed), ["-20s", "0s", "2.5s", "1h 30m"]);
    }
}
