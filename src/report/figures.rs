//! How numbers are written: one place for digits, signs and intervals.

use crate::eval::Interval;

/// What stands where there is no figure.
pub const NO_FIGURE: &str = "–";

/// A fraction in points, as F1 is reported: 0.541 is `54.1`.
pub fn points(fraction: f64) -> String {
    minus(format!("{:.1}", 100.0 * fraction))
}

/// A difference of fractions in points, with its sign.
pub fn signed_points(fraction: f64) -> String {
    minus(format!("{:+.1}", 100.0 * fraction))
}

/// An interval of fractions in points.
pub fn interval(interval: &Interval) -> String {
    format!("[{}, {}]", points(interval.low), points(interval.high))
}

/// An interval of differences in points, with signs.
pub fn signed_interval(interval: &Interval) -> String {
    let (low, high) = (signed_points(interval.low), signed_points(interval.high));
    format!("[{low}, {high}]")
}

/// A number with so many digits after the point.
pub fn digits(value: f64, digits: usize) -> String {
    minus(format!("{value:.digits$}"))
}

/// An interval with so many digits after the point.
pub fn interval_digits(interval: &Interval, places: usize) -> String {
    let (low, high) = (digits(interval.low, places), digits(interval.high, places));
    format!("[{low}, {high}]")
}

/// A count, in groups of three digits.
pub fn count(value: u64) -> String {
    let plain = value.to_string();
    let mut grouped = String::new();
    for (position, digit) in plain.chars().enumerate() {
        if position > 0 && (plain.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A confidence level: 0.95 is `95 %`.
pub fn level(level: f64) -> String {
    format!("{} %", (1000.0 * level).round() / 10.0)
}

/// A span of time in words.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A figure that may be missing.
pub fn or_none<T>(value: Option<T>, write: impl Fn(T) -> String) -> String {
    value.map_or_else(|| NO_FIGURE.to_owned(), write)
}

/// The mean; nothing of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut n) = (0.0, 0usize);
    for value in values {
        sum += value;
        n += 1;
    }
    (n > 0).then(|| sum / n as f64)
}

/// The true minus sign; and no minus before a zero.
fn minus(text: String) -> String {
    let zero = !text.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    match text.strip_prefix('-') {
        Some(rest) if zero => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_a_reader_expects() {
        assert_eq!(points(0.5406), "54.1");
        assert_eq!(points(-0.0001), "0.0");
        assert_eq!(signed_points(0.0406), "+4.1");
        assert_eq!(signed_points(-0.0206), "−2.1");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
        assert_eq!(level(0.95), "95 %");
        assert_eq!(duration(59.96), "1 min 0 s");
        assert_eq!(duration(12.34), "12.3 s");
        assert_eq!(duration(4000.0), "1 h 6 min");
        assert_eq!(or_none(None, points), "–");
    }
}
