//! The metrics both binaries register, read from their sources: a scrape shows a labelled one only
//! once it has counted.

use std::path::PathBuf;

use signet_tests::kube::manifests::{repository, text};

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

/// The files that register, the prefix of what they do, and the struct that holds it.
const SOURCES: [(&str, &str, &str); 11] = [
    ("ca-server/src/metrics.rs", "signet_ca", "Metrics"),
    ("ca-server/src/metrics/pods.rs", "signet_ca", "PodMetrics"),
    ("ca-server/src/metrics/trust.rs", "signet_ca", "TrustMetrics"),
    ("agent/src/metrics.rs", "signet_agent", "Metrics"),
    ("proxy/src/metrics.rs", "", "Metrics"),
    ("proxy/src/metrics/tcp.rs", "", "TcpMetrics"),
    ("proxy/src/policy_source/metrics.rs", "", "PolicyMetrics"),
    ("proxy/src/http/metrics.rs", "", "HttpMetrics"),
    ("proxy/src/probes.rs", "", "ProbeMetrics"),
    ("proxy/src/jwt.rs", "", "TokenMetrics"),
    ("proxy/src/ext_authz.rs", "", "AskMetrics"),
];

/// Every metric of both binaries.
pub(crate) fn metrics() -> Vec<Metric> {
    let of = |(file, prefix, holder): (&str, &str, &str)| of(file, prefix, holder);
    SOURCES.into_iter().flat_map(of).collect()
}

/// The metrics one file registers: by a call each, or as rows `("name", "help", &m.field)` of a table.
fn of(file: &str, prefix: &str, holder: &str) -> Vec<Metric> {
    // Where they are many, the names have a file of their own below.
    let below = PathBuf::from(file).with_extension("").join("register.rs");
    let below = std::fs::read_to_string(repository().join(below)).unwrap_or_default();
    let source = text(file) + &below;
    let calls = source.split(".register(").skip(1).filter_map(|call| {
        let name = call.trim_start().strip_prefix('"')?.split('"').next()?;
        let field = call.split(".clone()").next()?.rsplit('.').next()?;
        Some((name, field))
    });
    let rows = source.match_indices("&m.").filter_map(|(at, _)| {
        let row = source[..at].rsplit('(').next()?;
        let name = row.trim_start().strip_prefix('"')?.split('"').next()?;
        let field = source[at + 3..]
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .next()?;
        Some((name, field))
    });
    let body = source.split(&format!("pub struct {holder} {{")).nth(1);
    let body = body.unwrap().split("\n}").next().unwrap();
    let registered: Vec<Metric> = calls
        .chain(rows)
        .map(|(name, field)| Metric {
            name: if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}_{name}")
            },
            kind: kind(body, field),
        })
        .collect();
    let single = |line: &&str| {
        let kinds = ["Counter", "Gauge", "Histogram", "Family<", "Outcomes", "Reasons"];
        !line.trim_start().starts_with("//") && kinds.iter().any(|kind| line.contains(kind))
    };
    let fields = body.lines().filter(single).count();
    assert_eq!(
        registered.len(),
        fields,
        "{file}: every metric is registered once"
    );
    registered
}

fn kind(body: &str, field: &str) -> Kind {
    let mut lines = body
        .lines()
        .map(|line| line.trim_start().trim_start_matches("pub "));
    let declared = lines
        .find(|line| line.starts_with(&format!("{field}: ")))
        .unwrap_or_else(|| panic!("no field {field}"));
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
        ["signet_ca_", "signet_agent_", "signet_proxy_"]
            .iter()
            .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
    });
    ours.map(str::to_owned).collect()
}
