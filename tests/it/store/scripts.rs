//! The scripts, read as text: what only a real cluster would notice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn scripts() -> BTreeMap<String, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/scripts");
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// A server that keeps only some of the keys lets a script use others of its own without a
/// word, until they lie elsewhere.
#[test]
fn every_key_a_script_uses_is_passed_to_it() {
    let mut calls = 0;
    for (name, text) in scripts() {
        let calls_of = |text: &str, start: &str| {
            text.split(start).skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        for call in
            calls_of(&text, "redis.call(").into_iter().chain(calls_of(&text, "redis.pcall("))
        {
            calls += 1;
            let (command, rest) = call
                .split_once(['\'', ')'])
                .and_then(|(before, rest)| {
                    assert!(before.is_empty(), "{name}: {call}");
                    rest.split_once('\'')
                })
                .unwrap_or_else(|| panic!("{name}: {call}"));
            let argument = rest.trim_start_matches([',', ' ', '\n']);
            let keyless = matches!(command, "TIME" | "PUBLISH");
            assert!(keyless || argument.starts_with("KEYS["), "{name}: {command} {argument}");
        }
    }
    assert!(calls > 40, "the scripts were not found");
}

/// Times must not differ between the server and whoever it passes its writes on to.
#[test]
fn no_script_is_left_to_chance() {
    for (name, text) in scripts() {
        for word in ["math.random", "os.", "SPOP", "RANDOMKEY", "tostring(term"] {
            assert!(!text.contains(word), "{name}: {word}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{name}: a line is too long");
        assert!(text.starts_with("-- "), "{name}: it does not say what it is for");
    }
}
