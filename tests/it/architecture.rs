//! The map's absences, checked: who may import whom, and how large a file may grow.

use std::fs;
use std::path::{Path, PathBuf};

/// A larger file needs a reason in its head, beginning with this.
const SIZE_REASON: &str = "//! Longer than 400 lines because";
const LINES_MAX: usize = 400;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Every source file with its path below `src/` and its text without tests.
fn production() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), code.to_owned())
        })
        .collect()
}

fn module_of(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// `module -> what it must not name`.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "fleet",
        &[
            "api",
            "app",
            "cli",
            "clock",
            "config",
            "docker",
            "election",
            "github",
            "loops",
            "sim",
            "store",
            "telemetry",
        ],
    ),
    ("github", &["docker", "store", "loops", "api", "app", "cli", "election", "config", "sim"]),
    ("docker", &["github", "store", "loops", "api", "app", "cli", "election", "config", "sim"]),
    ("store", &["github", "docker", "loops", "api", "app", "cli", "config", "sim"]),
    ("loops", &["api", "app", "cli", "config", "sim"]),
    ("election", &["api", "app", "cli", "config", "sim", "loops", "github", "docker"]),
    ("api", &["cli", "sim"]),
];

#[test]
fn modules_name_only_what_lies_beneath_them() {
    let mut wrong = Vec::new();
    for (path, code) in production() {
        let Some((_, forbidden)) = FORBIDDEN.iter().find(|(module, _)| *module == module_of(&path))
        else {
            continue;
        };
        for (number, line) in code.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for other in *forbidden {
                if line.contains(&format!("crate::{other}")) {
                    wrong.push(format!("src/{path}:{}: names {other}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_reads_no_clock_and_does_no_io() {
    let banned = ["tokio", "std::env", "std::fs", "std::net", "SystemTime", "Instant", "async fn"];
    let mut wrong = Vec::new();
    for (path, code) in production() {
        if module_of(&path) != "fleet" {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            if let Some(what) = banned.iter().find(|what| !is_comment && line.contains(**what)) {
                wrong.push(format!("src/{path}:{}: {what}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_long_file_says_why() {
    let wrong: Vec<String> = production()
        .into_iter()
        .filter(|(_, code)| code.lines().count() > LINES_MAX && !code.contains(SIZE_REASON))
        .map(|(path, code)| format!("src/{path}: {} lines", code.lines().count()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_host_loop_changes_docker() {
    let calls = [".create(&", ".docker.start(", ".docker.stop(", ".docker.remove("];
    let mut wrong = Vec::new();
    for (path, code) in production() {
        let allowed = path.starts_with("loops/host")
            || path.starts_with("docker")
            || path.starts_with("sim")
            || path.starts_with("cli/demo");
        for (number, line) in code.lines().enumerate() {
            if !allowed && calls.iter().any(|call| line.contains(call)) {
                wrong.push(format!("src/{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
