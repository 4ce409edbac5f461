//! Which loader an executable names, and which libraries that loader finds for it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only kind of program header that matters here: the loader's path.
const PT_INTERP: u32 = 3;

/// No path is longer; a larger value means that this is no program.
const LOADER_PATH_BYTES_MAX: u64 = 4096;

/// What an executable needs beside itself. A static one needs nothing.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// The path the executable's header names; nothing else starts it.
    pub(super) loader: Option<String>,
    pub(super) libraries: Vec<Library>,
}

/// A library: the name it is asked for by, the file found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Library {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// Asks the executable's own loader: it alone knows its search rules.
pub(super) fn needed(executable: &Path) -> io::Result<Needed> {
    let Some(loader) = loader(executable)? else {
        return Ok(Needed::default());
    };
    let listed = Command::new(&loader).arg("--list").arg(executable).output()?;
    let text = String::from_utf8_lossy(&listed.stdout);
    if !listed.status.success() {
        let problem = format!("{loader}: {}", String::from_utf8_lossy(&listed.stderr).trim());
        return Err(io::Error::other(problem));
    }
    Ok(Needed { libraries: read_list(&text)?, loader: Some(loader) })
}

/// Lines are `name => path (address)`; those without an arrow are the loader itself and
/// what the kernel provides.
fn read_list(text: &str) -> io::Result<Vec<Library>> {
    let mut libraries = Vec::new();
    for line in text.lines() {
        let Some((name, found)) = line.trim().split_once(" => ") else { continue };
        let path = found.rsplit_once(" (").map_or(found, |(path, _)| path);
        if !path.starts_with('/') {
            return Err(io::Error::other(format!("{name}: {path}")));
        }
        // A library may be asked for by its path; its place is still under its name.
        let name = name.rsplit('/').next().unwrap_or(name);
        libraries.push(Library { name: name.to_owned(), path: PathBuf::from(path) });
    }
    Ok(libraries)
}

/// Reads the loader's path from the program headers.
fn loader(executable: &Path) -> io::Result<Option<String>> {
    let mut file = File::open(executable)?;
    let mut head = [0; 64];
    file.read_exact(&mut head)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Err(io::Error::other("not a 64-bit little-endian ELF file"));
    }
    let table = u64_at(&head, 32)?;
    let (entry_bytes, entries) = (u16_at(&head, 54)?, u16_at(&head, 56)?);
    for n in 0..entries {
        file.seek(SeekFrom::Start(table + u64::from(n) * u64::from(entry_bytes)))?;
        let mut entry = [0; 56];
        file.read_exact(&mut entry)?;
        if u32_at(&entry, 0)? == PT_INTERP {
            let (offset, bytes) = (u64_at(&entry, 8)?, u64_at(&entry, 32)?);
            file.seek(SeekFrom::Start(offset))?;
            let mut path = Vec::new();
            file.take(bytes.min(LOADER_PATH_BYTES_MAX)).read_to_end(&mut path)?;
            let path = String::from_utf8(path).map_err(io::Error::other)?;
            return Ok(Some(path.trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    field(bytes, at).map(u64::from_le_bytes)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    bytes
        .get(at..at + N)
        .and_then(|field| field.try_into().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_test_names_its_loader_and_its_c_library() {
        let needed = needed(Path::new("/proc/self/exe")).unwrap();
        assert!(needed.loader.is_some_and(|loader| Path::new(&loader).exists()));
        assert!(needed.libraries.iter().all(|library| library.path.exists()));
    }

    #[test]
    fn a_list_is_read_by_its_arrows() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\
                    \tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\
                    \t/lib64/ld.so.2 (0x3)\n";
        let libc = Library { name: "libc.so.6".to_owned(), path: "/lib/x/libc.so.6".into() };
        assert_eq!(read_list(text).unwrap(), [libc]);
        let error = read_list("\tlibx.so => not found\n").unwrap_err();
        assert!(error.to_string().contains("libx.so"), "{error}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(loader(Path::new("/etc/passwd")).is_err());
        assert!(loader(Path::new("/nowhere")).is_err());
    }
}
