//! One YAML file per binary: read strictly, checked as a whole, every fault told at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest configuration file read, in bytes.
pub const MAX_CONFIG_BYTES: usize = 256 * 1024;

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct ConfigFaults {
    /// The file, when there is one.
    pub path: Option<PathBuf>,
    /// Each fault as `key: what is wrong and what would be right`.
    pub faults: Vec<String>,
}

impl ConfigFaults {
    fn text(&self) -> String {
        let place = self
            .path
            .as_ref()
            .map_or_else(|| "configuration".into(), |p| p.display().to_string());
        match self.faults.as_slice() {
            [one] => format!("{place}: {one}"),
            many => format!("{place} has {} faults:\n  {}", many.len(), many.join("\n  ")),
        }
    }
}

/// Collects faults while a raw configuration is turned into a checked one.
#[derive(Debug, Default)]
pub struct Faults(Vec<String>);

impl Faults {
    /// Notes a fault of `key`.
    pub fn add(&mut self, key: &str, fault: impl fmt::Display) {
        self.0.push(format!("{key}: {fault}"));
    }

    /// The value, or its fault noted and a stand-in that will never be used.
    pub fn take<T, E: fmt::Display>(&mut self, key: &str, value: Result<T, E>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(fault) => {
                self.add(key, fault);
                None
            }
        }
    }

    /// Parses `text`, noting the fault.
    pub fn parse<T: FromStr>(&mut self, key: &str, text: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let parsed = text.parse::<T>().map_err(|fault| format!("{text:?}: {fault}"));
        self.take(key, parsed)
    }

    /// `config` when nothing was noted, and it is there.
    ///
    /// # Errors
    /// All faults noted.
    pub fn finish<T>(self, config: Option<T>) -> Result<T, ConfigFaults> {
        match config {
            Some(config) if self.0.is_empty() => Ok(config),
            _ => Err(ConfigFaults {
                path: None,
                faults: self.0,
            }),
        }
    }
}

/// Reads the YAML file at `path` into a raw configuration, whose type refuses unknown keys.
///
/// # Errors
/// One fault: the file cannot be read, or the place in it that does not fit.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigFaults> {
    let fault = |text: String| ConfigFaults {
        path: Some(path.to_owned()),
        faults: vec![text],
    };
    let bytes = crate::files::read_bounded(path, MAX_CONFIG_BYTES).map_err(|e| fault(e.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| fault("is not UTF-8 text".into()))?;
    from_text(text).map_err(|faults| ConfigFaults {
        path: Some(path.to_owned()),
        ..faults
    })
}

/// As [`load`], from text. Empty text is an empty configuration.
///
/// # Errors
/// As [`load`].
pub fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, ConfigFaults> {
    let blank = text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let text = if blank { "{}" } else { text };
    serde_saphyr::from_str(text).map_err(|e| ConfigFaults {
        path: None,
        faults: vec![e.to_string()],
    })
}

/// A plain value as YAML, for `print-config`.
#[must_use]
pub fn to_yaml(value: &serde_json::Value) -> String {
    serde_saphyr::to_string(value)
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

/// A duration as people write it: `"24h"`, `"90s"`, `"1h30m"`, `"500ms"`, `"14d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

const UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no duration; write one like \"24h\", \"90s\" or \"1h30m\"");
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total = 0u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let letters = tail
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let part = number.checked_mul(*scale).ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
            rest = tail;
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in UNITS.iter().rev() {
            if left >= *scale {
                write!(f, "{}{unit}", left / scale)?;
                left %= scale;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_as_people_write_them() {
        for (text, seconds) in [("24h", 86_400), ("90s", 90), ("1h30m", 5_400), ("14d", 1_209_600)] {
            let parsed: HumanDuration = text.parse().unwrap();
            assert_eq!(parsed.0.as_secs(), seconds);
            assert_eq!(parsed.to_string().parse::<HumanDuration>().unwrap(), parsed);
        }
        for wrong in ["", "24", "h", "-1s", "1y", "1h-", "99999999999999999999d"] {
            let text = wrong.parse::<HumanDuration>().unwrap_err();
            assert!(
                text.ends_with("write one like \"24h\", \"90s\" or \"1h30m\""),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            #[expect(dead_code, reason = "only parsing is under test")]
            svid_ttl: Option<HumanDuration>,
        }
        let faults = from_text::<Raw>("svid_tll: 24h\n").unwrap_err().to_string();
        assert!(faults.contains("svid_tll"), "{faults}");
        from_text::<Raw>("# nothing set\n").unwrap();
        from_text::<Raw>("svid_ttl: 24h\n").unwrap();
    }
}
