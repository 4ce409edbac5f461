//! What people and programs read: results on standard output, messages on standard error.

use std::io::Write;

/// A line for a person.
pub fn message(text: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A result.
pub fn result(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A result that brings its own line breaks.
pub fn text(text: &str) {
    bytes(text.as_bytes());
}

/// A piece of a result as it came.
pub fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout();
    // Whoever closed the pipe wants no more of it.
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}
