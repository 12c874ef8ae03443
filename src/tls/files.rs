//! The files that TLS is made from.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::settled;

/// The settings that name them.
const CERTIFICATE: &str = "server.tls_certificate";
const KEY: &str = "server.tls_key";
const CLIENT_CA: &str = "server.tls_client_ca";

/// What is spoken over a connection, the first choice first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where the files are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, with those between it and its CA.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The certificates of which clients have to show one that was issued by them, where they have to.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS by the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}, the setting {setting}", path.display())]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not PEM, or has nothing of what it is to have.
    #[error("{} has no {what} in PEM, the setting {setting}", path.display())]
    Pem {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificate is none, or the key is that of another one.
    #[error(
        "the certificate {} and the key {} do not go together, the settings {CERTIFICATE} and {KEY}",
        certificate.display(), key.display()
    )]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// A certificate of the clients' CA is none.
    #[error("{} has a certificate that is none, the setting {CLIENT_CA}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What the files say.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl TlsFiles {
    pub(super) fn read(&self) -> Result<Content, TlsError> {
        let of = |setting, path: &Path| {
            let failed = |source| TlsError::Read { setting, path: path.to_owned(), source };
            settled::read(path).map_err(failed)
        };
        let client_ca = self.client_ca.as_deref().map(|path| of(CLIENT_CA, path)).transpose()?;
        Ok(Content {
            certificate: of(CERTIFICATE, &self.certificate)?,
            key: of(KEY, &self.key)?,
            client_ca,
        })
    }

    /// What is told of certificate and key.
    pub(super) fn mismatched(&self, source: rustls::Error) -> TlsError {
        let (certificate, key) = (self.certificate.clone(), self.key.clone());
        TlsError::Pair { certificate, key, source }
    }
}

impl Content {
    /// The settings whose files say something else.
    pub(super) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let same = [
            (CERTIFICATE, self.certificate == other.certificate),
            (KEY, self.key == other.key),
            (CLIENT_CA, self.client_ca == other.client_ca),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(setting, _)| setting).collect()
    }

    /// What connections are accepted with.
    pub(super) fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder =
            builder.with_safe_default_protocol_versions().expect("the provider has suites of both");
        let clients = self.clients(files)?;
        let looks_at_clients = clients.is_some();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let (chain, key) = self.pair(files)?;
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|source| files.mismatched(source))?;
        if looks_at_clients {
            // Who goes on with an old session is not asked for its certificate, which may have expired.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }

    /// The server's certificate with those behind it, and its key.
    pub(super) fn pair(
        &self,
        files: &TlsFiles,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(&self.certificate, (CERTIFICATE, &files.certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        let missing = |source| TlsError::Pem {
            setting: KEY,
            path: files.key.clone(),
            what: "private key",
            source,
        };
        Ok((chain, key.map_err(missing)?))
    }

    /// Who looks at the certificates of clients.
    fn clients(&self, files: &TlsFiles) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let (Some(bytes), Some(path)) = (&self.client_ca, &files.client_ca) else {
            return Ok(None);
        };
        let refused = |source: Box<_>| TlsError::ClientCa { path: path.clone(), source };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(bytes, (CLIENT_CA, path))? {
            roots.add(certificate).map_err(|error| refused(error.into()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        verifier.build().map(Some).map_err(|error| refused(error.into()))
    }
}

/// The certificates of a file, at least one.
fn certificates(
    bytes: &[u8],
    (setting, path): (&'static str, &Path),
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let missing =
        |source| TlsError::Pem { setting, path: path.to_owned(), what: "certificate", source };
    let read = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    match read.map_err(missing)? {
        none if none.is_empty() => Err(missing(pem::Error::NoItemsFound)),
        certificates => Ok(certificates),
    }
}

impl std::fmt::Debug for Content {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").finish_non_exhaustive()
    }
}
