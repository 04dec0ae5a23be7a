//! Numbers, sizes and times, as values of options.

use std::num::NonZeroU32;
use std::time::Duration;

use roomcast::{MAX_PAYLOAD, RateLimit};
use roomcast_redis::{MAX_HISTORY_BYTES, MIN_HISTORY_BYTES};
use schemars::{Schema, json_schema};

use crate::config::value::{OFF, Value, or};

/// Stands for "as the machine allows".
const AUTO: &str = "auto";

/// The longest time that an option may have: a longer one would overflow when added to the current time.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A number between two others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number<const MIN: usize, const MAX: usize>(usize);

/// How many of something there may be.
pub(crate) type Count = Number<1, { usize::MAX }>;
/// How often something may happen in a second.
pub(crate) type Rate = Number<1, { u32::MAX as usize }>;
/// How many threads there are; 0 for one for each CPU.
pub(crate) type Threads = Number<0, 1024>;

impl<const MIN: usize, const MAX: usize> Number<MIN, MAX> {
    pub(crate) fn get(self) -> usize {
        self.0
    }
}

impl<const MIN: usize, const MAX: usize> Value for Number<MIN, MAX> {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
        number.map(Self).ok_or_else(|| match (MIN, MAX) {
            (min, usize::MAX) => format!("it must be a number of at least {min}"),
            (0, max) => format!("it must be a number of at most {max}"),
            (min, max) => format!("it must be a number from {min} to {max}"),
        })
    }

    fn schema() -> Schema {
        let mut schema = json_schema!({ "title": "n", "type": "integer", "minimum": MIN });
        if MAX < usize::MAX {
            schema.insert("maximum".into(), MAX.into());
        }
        schema
    }
}

impl Rate {
    pub(crate) fn per_second(self) -> NonZeroU32 {
        u32::try_from(self.0).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX)
    }
}

/// `N/s`, which may happen at once, or `N/s burst M`.
impl Value for RateLimit {
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = "it must be a rate, such as 200/s or '200/s burst 1000', or off";
        parse_rate(text).ok_or_else(|| allowed.to_owned())
    }

    fn schema() -> Schema {
        or(
            OFF,
            json_schema!({ "title": "rate", "type": "string", "pattern": "^[1-9][0-9]{0,8}/s( burst [1-9][0-9]{0,8})?$" }),
        )
    }
}

fn parse_rate(text: &str) -> Option<RateLimit> {
    if text == OFF {
        return Some(RateLimit::UNLIMITED);
    }
    let number = |text: &str| text.parse().ok().filter(|number| (1..1_000_000_000).contains(number));
    match text.split_once("/s burst ") {
        Some((rate, burst)) => Some(RateLimit::per_second(number(rate)?).burst(number(burst)?)),
        None => Some(RateLimit::per_second(number(text.strip_suffix("/s")?)?)),
    }
}

/// A number of bytes, at least 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(usize);

impl Size {
    pub(crate) fn bytes(self) -> usize {
        self.0
    }
}

impl Value for Size {
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = "it must be a size of at least 1 byte, such as 65536, 64KiB or 1MiB";
        parse_size(text).map(Self).ok_or_else(|| allowed.to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "title": "size", "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^[1-9][0-9]* ?(B|KiB|MiB|GiB)?$" },
        ] })
    }
}

/// Binary units only: with decimal ones, `1MB` and `1MiB` would differ by 5 %, which is easily overlooked.
fn parse_size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

/// What `max_payload` may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PayloadSize(usize);

impl PayloadSize {
    pub(crate) fn bytes(self) -> usize {
        self.0
    }
}

impl Value for PayloadSize {
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = "it must be a size from 1 byte to 64MiB, such as 65536, 64KiB or 1MiB";
        parse_size(text).filter(|size| *size <= MAX_PAYLOAD).map(Self).ok_or_else(|| allowed.to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "title": "size", "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": MAX_PAYLOAD },
            { "type": "string", "pattern": "^([1-9][0-9]{0,7}( ?B)?|[1-9][0-9]{0,4} ?KiB|([1-9]|[1-5][0-9]|6[0-4]) ?MiB)$" },
        ] })
    }
}

/// What `redis_history_bytes` may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistorySize(usize);

impl HistorySize {
    pub(crate) fn bytes(self) -> usize {
        self.0
    }
}

impl Value for HistorySize {
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = "it must be a size from 256KiB to 16MiB, such as 262144, 512KiB or 1MiB";
        let is_allowed = |size: &usize| (MIN_HISTORY_BYTES..=MAX_HISTORY_BYTES).contains(size);
        parse_size(text).filter(is_allowed).map(Self).ok_or_else(|| allowed.to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "title": "size", "anyOf": [
            { "type": "integer", "minimum": MIN_HISTORY_BYTES, "maximum": MAX_HISTORY_BYTES },
            { "type": "string", "pattern": "^([1-9][0-9]{5,7}( ?B)?|[1-9][0-9]{2,4} ?KiB|([1-9]|1[0-6]) ?MiB)$" },
        ] })
    }
}

/// A part of the memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    /// As much as the machine allows.
    Auto,
    Bytes(Size),
}

impl Value for Memory {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            AUTO => Ok(Self::Auto),
            text => Size::parse(text).map(Self::Bytes).map_err(|allowed| format!("{allowed}, or auto")),
        }
    }

    fn schema() -> Schema {
        or(AUTO, Size::schema())
    }
}

/// What can be written for a time; `humantime` allows even more.
const TIME_PATTERN: &str = "^[0-9]+(ms|s|m|h)( ?[0-9]+(ms|s|m|h))*$";

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        parse_time(text).ok_or_else(|| "it must be a time, such as 0s, 500ms or 25s".to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "title": "time", "type": "string", "pattern": TIME_PATTERN })
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|time| *time <= MAX_TIME)
}

/// A time over 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NonZeroTime(Duration);

impl NonZeroTime {
    pub(crate) fn get(self) -> Duration {
        self.0
    }
}

impl Value for NonZeroTime {
    fn parse(text: &str) -> Result<Self, String> {
        let time = parse_time(text).filter(|time| !time.is_zero());
        time.map(Self).ok_or_else(|| "it must be a time over 0, such as 500ms, 25s or 2m".to_owned())
    }

    fn schema() -> Schema {
        Duration::schema()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_number_per_second_and_may_have_a_burst() {
        assert_eq!(parse_rate("200/s"), Some(RateLimit::per_second(200)));
        assert_eq!(parse_rate("10/s burst 1000"), Some(RateLimit::per_second(10).burst(1000)));
        assert_eq!(parse_rate("off"), Some(RateLimit::UNLIMITED));
        for bad in ["", "200", "0/s", "-1/s", "200/m", "200/s burst", "200/s burst 0", "1/s burst 4294967296", "1 /s"] {
            assert_eq!(parse_rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_defaults_of_rates_are_those_of_the_library() {
        let defaults = roomcast::RateLimits::default();
        for (key, limit) in [
            ("frames", defaults.frames),
            ("control_frames", defaults.control_frames),
            ("calls", defaults.calls),
            ("joins", defaults.joins),
            ("new_rooms", defaults.new_rooms),
            ("publishes", defaults.publishes),
            ("connections", defaults.connections),
        ] {
            let key = format!("rates.{key}");
            let setting = crate::config::settings().iter().find(|setting| setting.key == key).expect("an option");
            assert_eq!(setting.default, limit.to_string(), "{key}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("65536"), Some(65536));
        assert_eq!(parse_size("64KiB"), Some(65536));
        assert_eq!(parse_size("2 GiB"), Some(2 << 30));
        for bad in ["", "0", "1MB", "-1", "KiB", "99999999999GiB", "1.5MiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
