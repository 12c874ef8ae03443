//! Certificates, and clients that know them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use reqwest::redirect::Policy;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Who issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A pair for servers and clients on this machine.
    pub(crate) fn issue(&self) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority alone, and shows a certificate where it has one.
    pub(crate) fn client(&self, identity: Option<&Pair>) -> reqwest::ClientBuilder {
        rustls::crypto::ring::default_provider().install_default().ok();
        let trusted = reqwest::Certificate::from_pem(self.pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy().redirect(Policy::none());
        let client = client.tls_certs_only([trusted]);
        match identity {
            None => client,
            Some(Pair { certificate, key }) => {
                let pem = format!("{certificate}{key}");
                client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            }
        }
    }

    /// A connection on which nothing was said yet.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        (versions, protocols): (&[&'static SupportedProtocolVersion], &[&str]),
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(versions).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Whether a new connection shows this certificate.
    pub(crate) async fn is_shown(&self, address: SocketAddr, pair: &Pair) -> bool {
        let stream = self.connect(address, (rustls::ALL_VERSIONS, &[])).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        shown[0] == CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
    }
}

impl Pair {
    pub(crate) fn tonic(&self) -> tonic::transport::Identity {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        tonic::transport::Identity::from_pem(&self.certificate, &self.key)
    }
}

/// A folder with a server's files, as a certificate manager leaves them.
#[derive(Debug)]
pub(crate) struct TlsFolder {
    folder: TempDir,
}

impl TlsFolder {
    pub(crate) fn new(pair: &Pair) -> Self {
        let folder = TempDir::new().unwrap();
        let files = Self { folder };
        files.replace(pair);
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes both files anew, each at once.
    pub(crate) fn replace(&self, pair: &Pair) {
        self.put("tls.crt", &pair.certificate);
        self.put("tls.key", &pair.key);
    }

    /// Writes one file anew, at once.
    pub(crate) fn put(&self, name: &str, content: &str) {
        let draft = self.path(&format!(".{name}"));
        fs::write(&draft, content).unwrap();
        fs::rename(draft, self.path(name)).unwrap();
    }

    /// Makes the files links by way of a link to a folder, as the kubelet does with a secret, and has that
    /// lead to this pair.
    pub(crate) fn link(&self, generation: &str, pair: &Pair) {
        let files = self.path(generation);
        fs::create_dir(&files).unwrap();
        fs::write(files.join("tls.crt"), &pair.certificate).unwrap();
        fs::write(files.join("tls.key"), &pair.key).unwrap();
        let draft = self.path("..data_tmp");
        symlink(Path::new(generation), &draft);
        fs::rename(draft, self.path("..data")).unwrap();
        for name in ["tls.crt", "tls.key"] {
            let place = self.path(name);
            if !place.is_symlink() {
                fs::remove_file(&place).unwrap();
                symlink(&Path::new("..data").join(name), &place);
            }
        }
    }
}

fn symlink(to: &Path, at: &Path) {
    std::os::unix::fs::symlink(to, at).unwrap();
}
