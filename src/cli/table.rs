//! Tables for people: columns as wide as their widest cell, nothing cut off.

use std::fmt::Write;

use serde_json::Value;

/// A cell that has nothing to say.
const NOTHING: &str = "-";

/// Renders a head and rows of as many cells. The last column is not padded.
#[must_use]
pub fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(n, title)| {
            let cells = rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count());
            cells.max().unwrap_or(0).max(title.chars().count())
        })
        .collect();
    let mut out = String::new();
    line(&mut out, &widths, head.iter().copied());
    for row in rows {
        line(&mut out, &widths, row.iter().map(String::as_str));
    }
    out
}

fn line<'a>(out: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let mut text = String::new();
    for (cell, width) in cells.zip(widths) {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{cell:width$}  ");
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

/// One field of a JSON object as a cell; `path` goes into nested objects by `/`.
#[must_use]
pub fn cell(object: &Value, path: &str) -> String {
    match object.pointer(&format!("/{path}")) {
        None | Some(Value::Null) => NOTHING.to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(other) => other.to_string(),
    }
}

/// The elements of an array as rows of these fields.
#[must_use]
pub fn rows(array: Option<&Value>, paths: &[&str]) -> Vec<Vec<String>> {
    let elements = array.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    elements.iter().map(|element| paths.iter().map(|path| cell(element, path)).collect()).collect()
}

/// Names and messages may come from strangers: nothing of them steers a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let body = json!([{"a": "x", "b": {"c": 12}}, {"a": "longer", "b": {"c": null}}]);
        let text = render(&["A", "COUNT"], &rows(Some(&body), &["a", "b/c"]));
        assert_eq!(text, "A       COUNT\nx       12\nlonger  -\n");
    }

    #[test]
    fn nothing_in_a_cell_steers_the_terminal() {
        let text = cell(&json!({"a": "x\u{1b}[2Jy\n"}), "a");
        assert!(!text.contains(['\u{1b}', '\n']), "{text:?}");
    }
}
