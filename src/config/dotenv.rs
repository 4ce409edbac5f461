//! Reads the text of a `.env` file: `export`, quotes, inline comments, values over
//! several lines. Nothing is substituted: a `$` in a password stays a `$`.

use std::collections::BTreeMap;

/// What a `.env` file says, and what is wrong with it.
#[derive(Default)]
pub(super) struct DotEnv {
    /// The last assignment of each name.
    pub values: BTreeMap<String, Entry>,
    /// Lines that cannot be understood without guessing. No text of the line is in them:
    /// it may be a secret.
    pub problems: Vec<(usize, &'static str)>,
}

pub(super) struct Entry {
    pub value: String,
    /// Counted from 1.
    pub line: usize,
}

pub(super) fn parse(text: &str) -> DotEnv {
    let mut out = DotEnv::default();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    while !rest.is_empty() {
        let (statement, after) = match assignment(rest) {
            Statement::Nothing { after } => (None, after),
            Statement::Assign { name, value, after } => (Some(Ok((name, value))), after),
            Statement::Wrong { why, after } => (Some(Err(why)), after),
        };
        match statement {
            None => {}
            Some(Ok((name, value))) => {
                out.values.insert(name, Entry { value, line });
            }
            Some(Err(why)) => out.problems.push((line, why)),
        }
        line += rest[..rest.len() - after.len()].matches('\n').count();
        rest = after;
    }
    out
}

enum Statement<'a> {
    Nothing { after: &'a str },
    Assign { name: String, value: String, after: &'a str },
    Wrong { why: &'static str, after: &'a str },
}

/// The first line (or, within quotes, lines) of the text.
fn assignment(text: &str) -> Statement<'_> {
    let (line, after) = split_line(text);
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Statement::Nothing { after };
    }
    let Some((name, _)) = trimmed.split_once('=') else {
        return Statement::Wrong { why: "expected NAME=value", after };
    };
    let name = name.trim();
    let name = name.strip_prefix("export ").map_or(name, str::trim_start);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Statement::Wrong { why: "expected NAME=value", after };
    }
    // The value starts after the first `=` of the text, which the name cannot contain.
    let value = text.split_once('=').map_or("", |(_, value)| value);
    let value = value.trim_start_matches([' ', '\t']);
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => match quoted(&value[1..], quote) {
            None => Statement::Wrong { why: "the quote is not closed", after },
            Some((value, rest)) => {
                let (tail, after) = split_line(rest);
                let tail = tail.trim();
                if tail.is_empty() || tail.starts_with('#') {
                    Statement::Assign { name: name.to_owned(), value, after }
                } else {
                    Statement::Wrong { why: "there is text after the closing quote", after }
                }
            }
        },
        _ => Statement::Assign { name: name.to_owned(), value: plain(split_line(value).0), after },
    }
}

fn split_line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

/// An unquoted value ends at a `#` that follows a blank, or that it begins with.
fn plain(line: &str) -> String {
    if line.starts_with('#') {
        return String::new();
    }
    let end = line
        .match_indices('#')
        .find(|(at, _)| line[..*at].ends_with([' ', '\t']))
        .map_or(line.len(), |(at, _)| at);
    line[..end].trim().to_owned()
}

/// The text up to the closing quote, and what follows it. Backslashes mean something in
/// double quotes only.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((value, &text[at + 1..])),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$' | '`' | '\'') => value.push(c),
                other => value.extend(['\\', other]),
            },
            '\r' if text[at..].starts_with("\r\n") => {}
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, String)> {
        parse(text).values.into_iter().map(|(name, entry)| (name, entry.value)).collect()
    }

    #[test]
    fn one_line_forms() {
        for (line, value) in [
            ("K=v", "v"),
            ("  K = v  ", "v"),
            ("export K=v", "v"),
            ("K=", ""),
            ("K= # only a comment", ""),
            ("K=#text", ""),
            ("K=a # comment", "a"),
            ("K=a#b", "a#b"),
            ("K=\ta\t# c", "a"),
            ("K='a # b' # c", "a # b"),
            ("K=\"a # b\"", "a # b"),
            ("K='a\\n$b'", "a\\n$b"),
            ("K=\"a\\n\\\"b\\\" \\d\"", "a\n\"b\" \\d"),
            ("K=$HOME/${x}", "$HOME/${x}"),
            ("K=a=b=c", "a=b=c"),
            ("K=it's", "it's"),
            ("K=v\r", "v"),
            ("\u{feff}K=v", "v"),
        ] {
            assert_eq!(values(line), [("K".to_owned(), value.to_owned())], "{line:?}");
        }
    }

    #[test]
    fn values_over_several_lines_keep_the_line_numbers_right() {
        let parsed = parse("# head\n\nA=\"one\ntwo\"\r\nB=3\nbroken\nC='x\nA=4\n");
        assert_eq!(parsed.values["B"].line, 5);
        assert_eq!(parsed.problems, [(6, "expected NAME=value"), (7, "the quote is not closed")]);
        assert_eq!((parsed.values["A"].value.as_str(), parsed.values["A"].line), ("4", 8));
        assert!(!parsed.values.contains_key("C"));
    }

    #[test]
    fn what_is_no_assignment_is_a_problem_without_its_text() {
        let parsed = parse("ghp_secret\nA B=1\nK='x' y\n= 3\n");
        assert!(parsed.values.is_empty());
        let text = format!("{:?}", parsed.problems);
        assert_eq!(parsed.problems.len(), 4);
        assert!(!text.contains("ghp_secret"), "{text}");
    }
}
