//! Times since 1970, as tokens, records and messages contain them. Times before 1970 are 0.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns a time as whole seconds.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Returns a time as whole milliseconds.
pub(crate) fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_whole_units_since_1970() {
        let time = UNIX_EPOCH + Duration::from_micros(1_999_999);
        assert_eq!((seconds(time), millis(time)), (1, 1_999));
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!((seconds(before), millis(before)), (0, 0));
        assert!(seconds(SystemTime::now()) > 1_700_000_000);
    }
}
