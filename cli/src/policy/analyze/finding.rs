//! Findings: stable codes, how bad each is, and what to do.

use serde::{Serialize, Serializer};

use super::super::documents::Place;
use crate::print::{Cell, Page, Tone};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Likely not meant.
    Warning,
    /// Cannot be meant, or lets in whom it should not.
    Error,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $severity:ident, $alone:literal;)+) => {
        /// What was found. The number of a code never changes, and is never given again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// All codes, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code as it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => concat!("SGN", $number),)+ }
            }

            /// What it is about.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// How bad it is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }

            /// Whether policies alone show it, without workloads and services.
            #[must_use]
            pub fn by_policies_alone(self) -> bool {
                match self { $(Self::$name => $alone,)+ }
            }
        }
    };
}

codes! {
    /// faulty policy
    Faulty = "0001", Error, true;
    /// policy selects nothing
    SelectsNothing = "0002", Warning, false;
    /// HTTP fields on a port that is not known to carry HTTP
    HttpOnTcp = "0003", Warning, false;
    /// scheme in a principal
    Scheme = "0004", Error, true;
    /// rule on tokens where no RequestAuthentication reaches
    NoTokens = "0005", Warning, true;
    /// DENY of HTTP fields without ports
    BroadDeny = "0006", Warning, true;
    /// rule on identity that callers without one pass by
    PlaintextPasses = "0007", Error, true;
    /// rule on identity where plaintext is taken
    PlaintextRefused = "0008", Info, true;
    /// rule on identity on a port without TLS
    NoIdentity = "0009", Error, true;
    /// service account of several workloads
    SharedAccount = "0010", Warning, false;
    /// default service account
    DefaultAccount = "0011", Warning, false;
    /// waypoint named in a way that counts nowhere
    WaypointLabel = "0012", Error, false;
    /// host without its port
    HostWithoutPort = "0013", Warning, true;
    /// negated path, method or host in an ALLOW
    NegatedAllow = "0014", Warning, true;
    /// namespace without deny by default
    NoDefaultDeny = "0015", Warning, false;
    /// address of a balancer in place of the client's
    BehindBalancer = "0016", Warning, false;
    /// selector on a gateway or waypoint
    SelectsGateway = "0017", Warning, true;
    /// tokens are judged and never demanded
    TokenNotDemanded = "0018", Warning, true;
    /// private key in a key set
    PrivateKey = "0019", Error, true;
    /// absent namespace
    AbsentNamespace = "0020", Warning, false;
    /// keys fetched without TLS, or from this machine
    KeysInClear = "0021", Error, true;
    /// port of a service in place of the workload's
    ServicePort = "0022", Warning, false;
    /// selector without labels
    EmptySelector = "0023", Warning, true;
    /// PeerAuthentication with a selector in the root namespace
    RootSelector = "0024", Error, true;
    /// second PeerAuthentication on one level
    SecondPeer = "0025", Warning, true;
    /// ALLOW that a DENY takes back
    AllowUnderDeny = "0026", Warning, true;
    /// tokens for any audience
    AnyAudience = "0027", Info, true;
    /// principal without the form of one
    PrincipalForm = "0028", Error, true;
    /// method in lower case
    LowerMethod = "0029", Error, true;
    /// path without its first slash
    PathWithoutSlash = "0030", Error, true;
    /// no proxy in a pod that policies reach
    NotEnrolled = "0031", Warning, false;
    /// principal of a foreign trust domain
    ForeignDomain = "0032", Info, true;
    /// cluster.local where it does not mean our trust domain
    LiteralDomain = "0033", Error, true;
    /// key set without a usable key
    NoUsableKey = "0034", Error, true;
    /// HTTP fields in ambient mode without a waypoint
    HttpInAmbient = "0035", Warning, false;
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub code: Code,
    /// The object.
    pub object: String,
    /// The field in it; empty for the whole object.
    pub field: String,
    /// The file, and the line where it is known.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// What is so, and what comes of it.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
    /// Where the code is explained.
    pub docs: String,
}

impl Finding {
    /// As a part of a page.
    pub fn show(&self, page: &mut Page) {
        let tone = match self.severity {
            Severity::Error => Tone::Bad,
            Severity::Warning => Tone::Warn,
            Severity::Info => Tone::Plain,
        };
        let place = self
            .place
            .as_ref()
            .map(|place| format!(" {place}"))
            .unwrap_or_default();
        page.line(Cell::new(format!("{}{place}", self.code.as_str()), tone));
        page.fact("  what", Cell::new(self.code.title(), tone));
        page.fact("  object", &*self.object);
        if !self.field.is_empty() {
            page.fact("  field", &*self.field);
        }
        page.fact("  so", &*self.problem);
        page.fact("  fix", &*self.fix);
    }
}

/// The anchor of a code in the documents.
#[must_use]
pub fn docs(code: Code) -> String {
    format!("docs/policy.md#{}", code.as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_with_its_title_and_is_given_once() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md");
        let page = std::fs::read_to_string(path).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            let anchor = code.as_str().to_ascii_lowercase();
            let row = format!("| <a id=\"{anchor}\"></a>{} | {} |", code.as_str(), code.title());
            assert!(page.contains(&row), "docs/policy.md has no row {row:?}");
            assert!(seen.insert(code.as_str()), "{} is given twice", code.as_str());
        }
    }
}
