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
