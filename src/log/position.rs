//! A position: a place in the log that a client passes back to read its own writes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The epoch and the offset in each partition concerned. Its text is opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// Raised when the database is restored to an earlier point: places of before mean nothing then.
    pub epoch: i64,
    /// The last offset that has to be seen, by partition.
    pub offsets: BTreeMap<i16, i64>,
}

/// The longest text of a position that is looked at.
const TEXT_BYTES_MAX: usize = 32 * 1024;

impl Position {
    /// The place of one offset.
    pub fn at(epoch: i64, partition: i16, offset: i64) -> Self {
        Self { epoch, offsets: BTreeMap::from([(partition, offset)]) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.epoch.to_string();
        for (partition, offset) in &self.offsets {
            text.push_str(&format!(".{partition}-{offset}"));
        }
        f.write_str(&URL_SAFE_NO_PAD.encode(text))
    }
}

impl serde::Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no position: pass one back exactly as this service gave it")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;
    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let parse = || {
            let bytes = (text.len() <= TEXT_BYTES_MAX).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
            let plain = String::from_utf8(bytes).ok()?;
            let mut parts = plain.split('.');
            let epoch = parts.next()?.parse().ok().filter(|epoch| *epoch >= 1)?;
            let offsets = parts.map(|part| {
                let (partition, offset) = part.split_once('-')?;
                let partition = partition.parse::<i16>().ok().filter(|partition| *partition >= 0)?;
                Some((partition, offset.parse::<i64>().ok().filter(|offset| *offset >= 0)?))
            });
            Some(Self { epoch, offsets: offsets.collect::<Option<_>>()? })
        };
        parse().ok_or(InvalidPosition)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_position_survives_text() {
        let position = Position { epoch: 3, offsets: BTreeMap::from([(0, 12), (15, 9_007_199_254_740_993)]) };
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
    }

    #[test]
    fn refuses_what_is_no_position() {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let bad = [
            "".into(),
            "x".into(),
            "!!".into(),
            encode("1.a-1"),
            encode("0.1-1"),
            encode("1.1-"),
            encode("1.-1-5"),
            encode("1.1--5"),
            "A".repeat(40_000),
        ];
        for text in bad {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }
}
