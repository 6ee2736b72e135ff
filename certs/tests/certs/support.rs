//! The test CA: certificates as a table of facts, every one of which a test can change, leave out or
//! repeat. The library under test builds none of this.

pub(crate) mod der;
pub(crate) mod peer;

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CustomExtension, DnType, KeyPair, PublicKeyData};
use signet_certs::certificate::Certificate;
use signet_certs::verify::{Role, VerifyError, verify_peer};
use signet_certs::{BundleSet, CertificateDer, SpiffeId, TrustBundle, TrustDomain, UnixTime};

use der::{KEY_USAGE, SAN};

/// When all tests take place: 2027-01-15 08:00:00 UTC, in seconds.
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const HOUR: i64 = 3600;
pub(crate) const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// [`NOW`] moved by some seconds.
pub(crate) fn at(offset: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW.checked_add_signed(offset).unwrap()))
}

pub(crate) fn now() -> UnixTime {
    at(0)
}

pub(crate) fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

pub(crate) fn id() -> SpiffeId {
    ID.parse().unwrap()
}

/// What a certificate will say.
#[derive(Clone)]
pub(crate) struct Spec {
    subject: rcgen::DistinguishedName,
    validity: (i64, i64),
    extensions: Vec<CustomExtension>,
}

impl Spec {
    /// A leaf that keeps every rule: empty subject, [`ID`], an hour to live.
    pub(crate) fn leaf() -> Self {
        Self {
            subject: rcgen::DistinguishedName::new(),
            validity: (-60, HOUR),
            extensions: vec![
                der::san(true, &[der::uri(ID)]),
                der::basic_constraints(false, None),
                der::key_usage(true, &[der::DIGITAL_SIGNATURE]),
                der::extended(&[der::SERVER_AUTH, der::CLIENT_AUTH]),
            ],
        }
    }

    /// A signing certificate that keeps every rule.
    pub(crate) fn ca(name: &str, path_len: Option<u8>) -> Self {
        let mut subject = rcgen::DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        Self {
            subject,
            validity: (-24 * HOUR, 24 * HOUR),
            extensions: vec![
                der::san(false, &[der::uri("spiffe://cluster.local")]),
                der::basic_constraints(true, path_len),
                der::key_usage(true, &[der::CERT_SIGN, der::CRL_SIGN]),
            ],
        }
    }

    /// With this extension, in place of one of the same kind.
    pub(crate) fn with(self, extension: CustomExtension) -> Self {
        let oid: Vec<u64> = extension.oid_components().collect();
        self.without(&oid).and(extension)
    }

    /// With one more extension, even of a kind that is there already.
    pub(crate) fn and(mut self, extension: CustomExtension) -> Self {
        self.extensions.push(extension);
        self
    }

    pub(crate) fn without(mut self, oid: &[u64]) -> Self {
        self.extensions
            .retain(|e| !e.oid_components().eq(oid.iter().copied()));
        self
    }

    /// Valid from and to, in seconds from [`NOW`].
    pub(crate) fn valid(mut self, from: i64, to: i64) -> Self {
        self.validity = (from, to);
        self
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        self.subject.push(DnType::CommonName, name);
        self
    }

    /// With exactly these names, and an empty subject.
    pub(crate) fn names(self, names: &[(u8, Vec<u8>)]) -> Self {
        let names = if names.is_empty() {
            vec![der::dns("shop.example")]
        } else {
            names.to_vec()
        };
        self.without(SAN).and(der::san(true, &names))
    }

    pub(crate) fn usage(self, bits: &[u8]) -> Self {
        self.without(KEY_USAGE).and(der::key_usage(true, bits))
    }

    fn params(&self) -> rcgen::CertificateParams {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let time = |offset| epoch + Duration::from_secs(at(offset).as_secs());
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = self.subject.clone();
        params.not_before = time(self.validity.0);
        params.not_after = time(self.validity.1);
        params.custom_extensions.clone_from(&self.extensions);
        params
    }

    /// Certifies `key`, signed by `issuer`.
    pub(crate) fn sign(&self, key: &impl PublicKeyData, issuer: &Ca) -> CertificateDer<'static> {
        let upper = issuer.spec.params();
        let issuer = rcgen::Issuer::from_params(&upper, &*issuer.key);
        self.params().signed_by(key, &issuer).unwrap().der().clone()
    }

    /// A leaf for a key of its own.
    pub(crate) fn by(&self, issuer: &Ca) -> CertificateDer<'static> {
        self.sign(&KeyPair::generate().unwrap(), issuer)
    }

    /// An authority with a key of its own, signed by `issuer`.
    pub(crate) fn below(self, issuer: &Ca) -> Ca {
        let key = KeyPair::generate().unwrap();
        let der = self.sign(&key, issuer);
        Ca {
            spec: self,
            key: Arc::new(key),
            der,
        }
    }

    /// An authority signed by itself.
    pub(crate) fn root(self) -> Ca {
        self.root_with(Arc::new(KeyPair::generate().unwrap()))
    }

    pub(crate) fn root_with(self, key: Arc<KeyPair>) -> Ca {
        let der = self.params().self_signed(&*key).unwrap().der().clone();
        Ca { spec: self, key, der }
    }
}

/// A signing key and its certificate.
#[derive(Clone)]
pub(crate) struct Ca {
    pub(crate) spec: Spec,
    pub(crate) key: Arc<KeyPair>,
    pub(crate) der: CertificateDer<'static>,
}

impl Ca {
    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::from_der(self.der.clone()).unwrap()
    }
}

pub(crate) fn bundle_of(name: &str, roots: &[&Ca]) -> Arc<TrustBundle> {
    let roots = roots.iter().map(|ca| ca.certificate()).collect();
    Arc::new(TrustBundle::new(name.parse().unwrap(), roots, 1).unwrap())
}

/// A root, an intermediate and the bundle of `cluster.local` that holds the root.
pub(crate) struct World {
    pub(crate) root: Ca,
    pub(crate) intermediate: Ca,
    pub(crate) bundles: BundleSet,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Spec::ca("test root", Some(1)), Spec::ca("test issuing", Some(0)))
    }

    pub(crate) fn with(root: Spec, intermediate: Spec) -> Self {
        let root = root.root();
        let intermediate = intermediate.below(&root);
        let bundles = BundleSet::of(bundle_of("cluster.local", &[&root]));
        Self {
            root,
            intermediate,
            bundles,
        }
    }

    /// The chain of a leaf below the intermediate.
    pub(crate) fn chain(&self, leaf: &Spec) -> Vec<CertificateDer<'static>> {
        vec![leaf.by(&self.intermediate), self.intermediate.der.clone()]
    }

    pub(crate) fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<SpiffeId, VerifyError> {
        self.verify_at(chain, 0)
    }

    pub(crate) fn verify_at(
        &self,
        chain: &[CertificateDer<'static>],
        offset: i64,
    ) -> Result<SpiffeId, VerifyError> {
        let server = verify_peer(chain, &self.bundles, Role::Server, at(offset));
        let client = verify_peer(chain, &self.bundles, Role::Client, at(offset));
        assert_eq!(server, client, "both roles are judged alike");
        client
    }
}
