//! What Python writes in its own way and templates rely on: `str`, `json.dumps` and `strftime`.

use std::io;

use minijinja::{
    Error, ErrorKind,
    value::{Kwargs, Value, ValueKind},
};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The days of the week from the first of January 1970 on.
const WEEKDAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// A value as `str` gives it.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Ok(String::new());
    }
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => repr(value),
    }
}

/// A value as `repr` gives it, which is how texts within lists are shown.
fn repr(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            let items = value.try_iter()?.map(|item| repr(&item));
            format!("[{}]", items.collect::<Result<Vec<_>, _>>()?.join(", "))
        }
        ValueKind::Map => {
            let pairs = value
                .try_iter()?
                .map(|key| Ok(format!("{}: {}", repr(&key)?, repr(&value.get_item(&key)?)?)));
            format!("{{{}}}", pairs.collect::<Result<Vec<_>, Error>>()?.join(", "))
        }
        _ => value.to_string(),
    })
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            char if char == quote => out.extend(['\\', quote]),
            char if char.is_ascii_control() => out.push_str(&format!("\\x{:02x}", char as u32)),
            char => out.push(char),
        }
    }
    out.push(quote);
    out
}

/// The filter `tojson` of transformers: `json.dumps` with its arguments, and `ensure_ascii=False` where it is not given.
pub(super) fn to_json(value: &Value, arguments: &Kwargs) -> Result<String, Error> {
    let indent = arguments
        .get::<Option<Value>>("indent")?
        .filter(|indent| !indent.is_none());
    let separators = arguments.get::<Option<Vec<String>>>("separators")?;
    let ascii = arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    if arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson cannot sort keys"));
    }
    arguments.assert_all_used()?;
    let indent = indent.map(|indent| match indent.as_str() {
        Some(indent) => indent.to_owned(),
        None => " ".repeat(usize::try_from(indent).unwrap_or(0)),
    });
    let (between_items, after_key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson takes two separators"));
        }
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let style = Dumps {
        indent,
        between_items,
        after_key,
        ascii,
        depth: 0,
        has_items: false,
    };
    let mut out = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut out, style))
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    String::from_utf8(out).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// How `json.dumps` lays JSON out.
struct Dumps {
    indent: Option<String>,
    between_items: String,
    after_key: String,
    ascii: bool,
    depth: usize,
    /// Whether the list or object that ends has any items.
    has_items: bool,
}

impl Dumps {
    fn begin<W: io::Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.has_items = false;
        out.write_all(bracket)
    }

    fn end<W: io::Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.has_items {
            self.new_line(out)?;
        }
        self.has_items = true;
        out.write_all(bracket)
    }

    fn item<W: io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.between_items.as_bytes())?;
        }
        self.new_line(out)
    }

    fn new_line<W: io::Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        match &self.indent {
            Some(indent) => write!(out, "\n{}", indent.repeat(self.depth)),
            None => Ok(()),
        }
    }
}

impl Formatter for Dumps {
    fn begin_array<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"[")
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"]")
    }

    fn begin_array_value<W: io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn end_array_value<W: io::Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_items = true;
        Ok(())
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"{")
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"}")
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.after_key.as_bytes())
    }

    fn end_object_value<W: io::Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_items = true;
        Ok(())
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ascii {
            return out.write_all(fragment.as_bytes());
        }
        for char in fragment.chars() {
            if char.is_ascii() {
                write!(out, "{char}")?;
            } else {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// A moment in UTC, in seconds since 1970, as `strftime` writes it; directives that no template uses stay as they are.
pub(super) fn date(seconds: u64, format: &str) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, weekday) = (second / 3600, WEEKDAYS[(days % 7) as usize]);
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut parts = format.split('%');
    out.push_str(parts.next().unwrap_or_default());
    while let Some(part) = parts.next() {
        let Some(directive) = part.chars().next() else {
            // Two signs are one, and the text goes on behind them.
            out.push('%');
            out.push_str(parts.next().unwrap_or_default());
            continue;
        };
        match directive {
            'Y' => out.push_str(&year.to_string()),
            'y' => out.push_str(&format!("{:02}", year % 100)),
            'm' => out.push_str(&format!("{month:02}")),
            'B' => out.push_str(month_name),
            'b' => out.push_str(&month_name[..3]),
            'd' => out.push_str(&format!("{day:02}")),
            'A' => out.push_str(weekday),
            'a' => out.push_str(&weekday[..3]),
            'H' => out.push_str(&format!("{hour:02}")),
            'M' => out.push_str(&format!("{:02}", second / 60 % 60)),
            'S' => out.push_str(&format!("{:02}", second % 60)),
            _ => out.extend(['%', directive]),
        }
        out.push_str(&part[directive.len_utf8()..]);
    }
    out
}

/// Year, month and day of a day since 1970: Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    // Days since the first of March of the year 0, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (
        day - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    (400 * era + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use minijinja::{context, value::Serde};

    use super::*;

    #[test]
    fn values_are_shown_as_python_shows_them() {
        let value = Value::from(Serde(("it's", "a \"b\"\n", None::<u8>, true, 1.0, [1, 2])));
        assert_eq!(
            text(&value).expect("a text"),
            r#"["it's", 'a "b"\n', None, True, 1.0, [1, 2]]"#
        );
        assert_eq!(text(&context! { a => "é" }).expect("a text"), "{'a': 'é'}");
        assert_eq!(text(&Value::from("it's")).expect("a text"), "it's");
        assert_eq!(text(&Value::UNDEFINED).expect("a text"), "");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // `date -u -d @1722047399` and so on.
        assert_eq!(date(1_722_047_399, "%d %b %Y"), "27 Jul 2024");
        assert_eq!(
            date(1_709_164_799, "%A, %d %B %y, %H:%M:%S"),
            "Wednesday, 28 February 24, 23:59:59"
        );
        assert_eq!(date(1_709_164_800, "%a %Y-%m-%d"), "Thu 2024-02-29");
        assert_eq!(date(0, "100%% %q of %Y"), "100% %q of 1970");
    }
}
