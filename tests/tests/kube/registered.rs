//! The metrics both binaries register, read from their sources: a scrape shows a labelled one only
//! once it has counted.

use signet_tests::kube::manifests::text;

/// What kind of samples a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    /// Its name with prefix, without what samples add.
    name: String,
    kind: Kind,
}

impl Metric {
    /// The names under which its samples are found.
    pub(crate) fn samples(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        suffixes
            .iter()
            .map(|suffix| format!("{}{suffix}", self.name))
            .collect()
    }

    /// The name to write in a document.
    pub(crate) fn documented(&self) -> String {
        match self.kind {
            Kind::Histogram => self.name.clone(),
            _ => self.samples().remove(0),
        }
    }
}

/// The files that register.
const SOURCES: [&str; 2] = ["ca-server/src/metrics.rs", "agent/src/metrics.rs"];

/// Every metric of both binaries.
pub(crate) fn metrics() -> Vec<Metric> {
    SOURCES.into_iter().flat_map(|file| of(&text(file))).collect()
}

fn of(source: &str) -> Vec<Metric> {
    let literal = |text: &str| text.split('"').nth(1).unwrap_or_default().to_owned();
    let prefix = literal(source.split("sub_registry_with_prefix(").nth(1).unwrap());
    let registered = source.split(".register(").skip(1).map(|call| {
        let field = call.split(".clone()").next().unwrap();
        let field = field.rsplit('.').next().unwrap();
        Metric {
            name: format!("{prefix}_{}", literal(call)),
            kind: kind(source, field),
        }
    });
    let registered: Vec<Metric> = registered.collect();
    let body = source
        .split("pub struct Metrics {")
        .nth(1)
        .unwrap()
        .split("\n}")
        .next()
        .unwrap();
    let fields = body
        .lines()
        .filter(|line| line.trim_start().starts_with("pub "))
        .count();
    assert_eq!(registered.len(), fields, "every metric is registered once");
    registered
}

fn kind(source: &str, field: &str) -> Kind {
    let declared = source
        .split(&format!("pub {field}: "))
        .nth(1)
        .unwrap_or_else(|| panic!("no field {field}"));
    let declared = declared.lines().next().unwrap();
    match declared {
        _ if declared.contains("Histogram") => Kind::Histogram,
        _ if declared.contains("Gauge") => Kind::Gauge,
        _ => Kind::Counter,
    }
}

/// The words of a text that look like our metrics.
pub(crate) fn mentioned(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| {
        ["signet_ca_", "signet_agent_"]
            .iter()
            .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
    });
    ours.map(str::to_owned).collect()
}
