//! Certificate authorities as operators bring them: made with rcgen and OpenSSL, in the files of Istio
//! and of Kubernetes.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SignatureAlgorithm,
};

use crate::openssl::openssl;

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA of 2048 bits.
    Rsa,
}

/// How a private key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// `PRIVATE KEY`.
    Pkcs8,
    /// `RSA PRIVATE KEY` or `EC PRIVATE KEY`.
    Traditional,
}

/// A CA certificate with its key.
pub struct TestCa {
    /// The certificate, PEM.
    pub pem: String,
    params: CertificateParams,
    key: KeyPair,
}

impl TestCa {
    /// A self-signed root.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn root(name: &str, kind: Kind) -> Self {
        let (params, key) = (params(name, None), key(kind));
        let pem = params.self_signed(&key).expect("root").pem();
        Self { pem, params, key }
    }

    /// A CA below this one that may have so many CAs below itself.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn below(&self, name: &str, kind: Kind, path_length: Option<u8>) -> Self {
        let (params, key) = (params(name, path_length), key(kind));
        let issuer = Issuer::from_params(&self.params, &self.key);
        let pem = params.signed_by(&key, &issuer).expect("intermediate").pem();
        Self { pem, params, key }
    }

    /// Its key, PEM.
    #[must_use]
    pub fn key(&self, form: KeyForm) -> String {
        let pem = self.key.serialize_pem();
        match form {
            KeyForm::Pkcs8 => pem,
            KeyForm::Traditional => openssl(&["pkey", "-traditional"], &pem),
        }
    }
}

/// Files of a CA in a directory.
#[derive(Debug)]
pub struct Files(PathBuf);

impl Files {
    /// In `directory`, which is made.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn at(directory: PathBuf) -> Self {
        std::fs::create_dir_all(&directory).expect("directory");
        Self(directory)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes one file, by rename as a projected volume changes.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, contents: &str) {
        let aside = self.0.join(format!(".{name}"));
        std::fs::write(&aside, contents).expect("file");
        std::fs::rename(&aside, self.0.join(name)).expect("rename");
    }

    /// Istio's layout: `ca` signs, `above` stands between it and `roots`.
    pub fn istio(&self, ca: &TestCa, form: KeyForm, above: &[&TestCa], roots: &[&TestCa]) {
        let pems = |all: &[&TestCa]| all.iter().map(|ca| ca.pem.as_str()).collect::<String>();
        self.write("root-cert.pem", &pems(roots));
        self.write("cert-chain.pem", &(ca.pem.clone() + &pems(above)));
        self.write("ca-cert.pem", &ca.pem);
        self.write("ca-key.pem", &ca.key(form));
    }

    /// Kubernetes' TLS layout.
    pub fn kubernetes(&self, ca: &TestCa, form: KeyForm, above: &[&TestCa], roots: &[&TestCa]) {
        let pems = |all: &[&TestCa]| all.iter().map(|ca| ca.pem.as_str()).collect::<String>();
        self.write("ca.crt", &pems(roots));
        self.write("tls.crt", &(ca.pem.clone() + &pems(above)));
        self.write("tls.key", &ca.key(form));
    }
}

fn params(name: &str, path_length: Option<u8>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let constraints = path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2060, 1, 1);
    params
}

fn key(kind: Kind) -> KeyPair {
    let algorithm: &SignatureAlgorithm = match kind {
        Kind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Kind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        Kind::Rsa => {
            let pem = crate::csrs::rsa_key(2048);
            return KeyPair::from_pem_and_sign_algo(&pem, &rcgen::PKCS_RSA_SHA256).expect("rsa key");
        }
    };
    KeyPair::generate_for(algorithm).expect("key")
}
