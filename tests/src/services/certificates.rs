//! Certificates for the TLS of a test's servers: a private authority, and its certificates for this machine.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// An authority that is trusted only by its file, and a server's and a client's certificate of it.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes them; the server's is good for `localhost` and 127.0.0.1.
    pub fn new() -> Result<Self> {
        let this = Self { folder: tempfile::Builder::new().prefix("retouch-tls-").tempdir()? };
        let mut authority = params(&[], &format!("Retouch test authority {}", uuid::Uuid::now_v7()))?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        fs::write(this.ca(), authority.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(authority, key);
        this.sign(&issuer, "server", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)?;
        this.sign(&issuer, "client", &["client"], ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(this)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate and its key: `server` or `client`.
    #[must_use]
    pub fn of(&self, name: &str) -> (PathBuf, PathBuf) {
        let file = |kind: &str| self.folder.path().join(format!("{name}{kind}.pem"));
        (file(""), file("-key"))
    }

    fn sign(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        name: &str,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<()> {
        let mut signed = params(names, name)?;
        signed.use_authority_key_identifier_extension = true;
        signed.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        signed.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let (cert_file, key_file) = self.of(name);
        fs::write(cert_file, signed.signed_by(&key, issuer)?.pem())?;
        fs::write(key_file, key.serialize_pem())?;
        Ok(())
    }
}

fn params(names: &[&str], common_name: &str) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}
