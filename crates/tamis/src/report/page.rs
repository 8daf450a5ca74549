//! What all pages share: the style, the script, how numbers read, where they stand on a track, how data for plots are embedded.

use std::borrow::Borrow;

use serde::Serialize;

pub(crate) const STYLE: &str = include_str!("../../templates/report.css");
pub(crate) const SCRIPT: &str = include_str!("../../templates/report.js");
pub(crate) const ECHARTS: &str = include_str!("../../templates/echarts/echarts.common.min.js");

/// Data for the page's script, as JSON that holds no markup and no line end that a script would trip over.
pub(crate) fn embed(data: &impl Serialize) -> String {
    let json = serde_json::to_string(data).unwrap_or_else(|_| "null".into());
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe += &format!("\\u{:04x}", c as u32),
            c => safe.push(c),
        }
    }
    safe
}

/// A count with its thousands set apart. Templates pass some numbers by reference, so either will do, here and below.
pub(crate) fn count(n: impl Borrow<u64>) -> String {
    let digits = n.borrow().to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun.
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A score.
pub(crate) fn score(value: f64) -> String {
    signed(&format!("{value:.4}"))
}

/// A difference of scores.
pub(crate) fn difference(value: f64) -> String {
    signed(&format!("{value:+.4}"))
}

/// A number with a minus sign instead of a hyphen, and no sign before zero.
fn signed(number: &str) -> String {
    if number.chars().all(|c| !c.is_ascii_digit() || c == '0') {
        number.trim_start_matches(['+', '-']).to_owned()
    } else {
        number.replace('-', "\u{2212}")
    }
}

/// A share, from 0 to 1, in percent.
pub(crate) fn percent(share: impl Borrow<f64>) -> String {
    format!("{:.1}%", 100.0 * share.borrow())
}

/// A time, in the unit that suits it.
pub(crate) fn duration(seconds: impl Borrow<f64>) -> String {
    match *seconds.borrow() {
        s if s < 0.0095 => format!("{:.1} ms", 1000.0 * s),
        s if s < 9.95 => format!("{s:.2} s"),
        s if s < 99.5 => format!("{s:.1} s"),
        s if s < 6000.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Bytes, in MiB or GiB.
pub(crate) fn bytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1000.0 {
        format!("{mebibytes:.0} MiB")
    } else {
        format!("{:.1} GiB", mebibytes / 1024.0)
    }
}

/// A line of numbers on which values have places, in percent of its length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Track {
    low: f64,
    high: f64,
}

impl Track {
    /// A track that shows all these values, with some air at its ends.
    pub(crate) fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if low > high {
            return Self { low: 0.0, high: 1.0 };
        }
        let air = (0.1 * (high - low)).max(5e-4);
        Self {
            low: low - air,
            high: high + air,
        }
    }

    /// Where a value stands.
    pub(crate) fn at(&self, value: f64) -> f64 {
        (100.0 * (value - self.low) / (self.high - self.low)).clamp(0.0, 100.0)
    }

    /// A style that places a mark at a value.
    pub(crate) fn mark(&self, value: f64) -> String {
        format!("left:{:.2}%", self.at(value))
    }

    /// A style that places a bar from one value to another.
    pub(crate) fn bar(&self, from: f64, to: f64) -> String {
        let (from, to) = (self.at(from), self.at(to));
        format!("left:{from:.2}%;width:{:.2}%", to - from)
    }

    /// What is written at its ends.
    pub(crate) fn ends(&self) -> [String; 2] {
        let digits = if self.high - self.low < 0.01 { 4 } else { 3 };
        [self.low, self.high].map(|end| signed(&format!("{end:.digits$}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_markup_stands_in_embedded_data_and_it_reads_back_as_it_was() {
        let text = "</script><img src=x onerror=alert(1)> & \u{2028} \"quoted\" \\ é";
        let embedded = embed(&text);
        assert!(!embedded.contains(['<', '>', '&', '\u{2028}']), "{embedded}");
        assert_eq!(serde_json::from_str::<String>(&embedded).expect("JSON"), text);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0_u64, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [difference(-0.01234), difference(0.00001), difference(0.5)],
            ["\u{2212}0.0123", "0.0000", "+0.5000"]
        );
        assert_eq!(
            [
                duration(0.0012),
                duration(1.5),
                duration(45.0),
                duration(600.0),
                duration(7200.0)
            ],
            ["1.2 ms", "1.50 s", "45.0 s", "10.0 min", "2.0 h"]
        );
        assert_eq!([bytes(5 << 20), bytes(3 << 30)], ["5 MiB", "3.0 GiB"]);
    }

    #[test]
    fn a_track_shows_its_values_with_air() {
        let track = Track::around([0.5, 0.7].into_iter());
        // 0.48 to 0.72, so that 0.6 is in the middle.
        assert!((track.at(0.6) - 50.0).abs() < 1e-9 && track.at(9.0) == 100.0);
        assert_eq!(track.bar(0.54, 0.6), "left:25.00%;width:25.00%");
        assert_eq!(track.ends(), ["0.480", "0.720"]);
        assert_eq!(Track::around([f64::NAN].into_iter()).ends(), ["0.000", "1.000"]);
    }
}
