//! Records as they are stored: JSON with a version. A reader takes the versions it knows
//! ([`RECORDS_READ`]) and ignores fields it does not know, so that replicas of two releases
//! work together while they are replaced one after the other.

use redis::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fleet::digest::Digest;
use crate::fleet::host::{Assignment, HostRecord, RECORDS_READ};
use crate::fleet::replica::ReplicaRecord;
use crate::store::StoreError;

/// A record that says which version it is of.
pub(super) trait Versioned {
    fn version(&self) -> u32;
}

macro_rules! versioned {
    ($($record:ty),+) => {
        $(impl Versioned for $record {
            fn version(&self) -> u32 {
                self.version
            }
        })+
    };
}

versioned!(HostRecord, Assignment, ReplicaRecord, Digest);

/// Writes a record.
pub(super) fn encode(record: &impl Serialize, action: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(record)
        .map_err(|error| StoreError::Refused { action, problem: error.to_string() })
}

/// Reads a record that has no version.
pub(super) fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// Reads a record of a version this program knows.
pub(super) fn decode_versioned<T: DeserializeOwned + Versioned>(text: &[u8]) -> Result<T, String> {
    #[derive(serde::Deserialize)]
    struct Head {
        version: u32,
    }
    match decode::<T>(text) {
        Ok(record) => check(record.version()).map(|()| record),
        // Of another version it need not parse; then that is what is wrong with it.
        Err(problem) => match decode::<Head>(text) {
            Ok(head) => check(head.version).and(Err(problem)),
            Err(_) => Err(problem),
        },
    }
}

fn check(version: u32) -> Result<(), String> {
    if RECORDS_READ.contains(&version) {
        Ok(())
    } else {
        let (oldest, newest) = (RECORDS_READ.start(), RECORDS_READ.end());
        Err(format!("of version {version}; this program reads {oldest} to {newest}"))
    }
}

/// The text of an answer; `None` for anything else.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// The same for what is never anything but text of ours.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Int(number) => Some(number.to_string()),
        other => bytes(other).map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// The items of an answer; none for anything else.
pub(super) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

/// Names and records, as a hash is answered.
pub(super) fn pairs(items: &[Value]) -> impl Iterator<Item = (String, &[u8])> {
    items.chunks_exact(2).filter_map(|pair| Some((text(&pair[0])?, bytes(&pair[1])?)))
}

/// Splits `number:rest`.
pub(super) fn numbered(value: &[u8]) -> Option<(u64, &[u8])> {
    let colon = value.iter().position(|byte| *byte == b':')?;
    let number = std::str::from_utf8(&value[..colon]).ok()?.parse().ok()?;
    Some((number, &value[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::host::RECORD_VERSION;

    fn assignment(version: u32) -> String {
        let record = Assignment { version, ..Assignment::default() };
        encode(&record, "testing").unwrap()
    }

    #[test]
    fn a_reader_takes_the_versions_it_knows() {
        for version in RECORDS_READ {
            let read = decode_versioned::<Assignment>(assignment(version).as_bytes());
            assert_eq!(read.map(|record| record.version), Ok(version));
        }
        let newer = assignment(RECORDS_READ.end() + 1);
        let problem = decode_versioned::<Assignment>(newer.as_bytes()).unwrap_err();
        assert!(problem.starts_with("of version 2"), "{problem}");
    }

    #[test]
    fn a_newer_record_of_another_shape_is_told_by_its_version() {
        let problem = decode_versioned::<Assignment>(br#"{"version":9,"term":"x"}"#).unwrap_err();
        assert!(problem.starts_with("of version 9"), "{problem}");
        assert!(decode_versioned::<Assignment>(b"{").unwrap_err().contains("EOF"));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let text = assignment(RECORD_VERSION).replacen('{', r#"{"added_later":1,"#, 1);
        assert!(decode_versioned::<Assignment>(text.as_bytes()).is_ok());
    }

    #[test]
    fn numbers_before_a_colon() {
        assert_eq!(numbered(b"12:{a:b}"), Some((12, b"{a:b}".as_slice())));
        assert_eq!(numbered(b"{a:b}"), None);
    }
}
