//! What goes to standard output and standard error, and what text from the user's data may look like on a terminal.

use std::{
    io::{ErrorKind, Write},
    path::Path,
};

use tamis::Error;

/// Prints a line, [`plain`]. A reader that has heard enough (`tamis ... | head -1`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    print_bytes(format!("{}\n", plain(text)).as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::io(Path::new("standard output"), "write")),
    }
}

/// Says a line on standard error, [`plain`]. Where nobody listens any more, nobody is told.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(text));
}

/// A text without the control characters by which data could steer a terminal; line ends stay.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_the_data_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc\r"), "a\u{fffd}[31mb\nc\u{fffd}");
    }
}
