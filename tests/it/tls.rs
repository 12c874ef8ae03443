//! TLS: what is encrypted, who is let in, and what becomes of it when certificates change.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Version;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::support::certificates::{Authority, Pair, TlsFolder};
use crate::support::grpc::proto::{ModelInferRequest, RepositoryIndexRequest};
use crate::support::grpc::{Client, x as message};
use crate::support::onnx::{Dim, Elem, add_constant, identity};
use crate::support::process::{PATIENCE, blocking, onward, run};
use crate::support::{Repository, Server, x};

/// A server that speaks TLS, and who has issued its certificate.
struct Fixture {
    server: Server,
    authority: Authority,
    folder: TlsFolder,
    pair: Pair,
    /// Whose certificates clients show, in `ca.crt`.
    clients: Option<TlsFolder>,
}

impl Fixture {
    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_by(Authority::new("one"), settings).await
    }

    async fn start_by(authority: Authority, settings: &[(&str, &str)]) -> Self {
        let pair = authority.issue();
        let folder = TlsFolder::new(&pair);
        let (certificate, key) = (folder.text("tls.crt"), folder.text("tls.key"));
        let files = [("server.tls_certificate", &*certificate), ("server.tls_key", &*key)];
        let graph = identity(Elem::Float, &[Dim::Symbolic("n")]);
        let repository = Repository::of("add", &add_constant(1.0)).and("id", 1, &graph);
        let server = Server::start_with(repository, &[&files, settings].concat()).await;
        let server = server.asked_by(authority.client(None));
        Self { server, authority, folder, pair, clients: None }
    }

    /// One that lets in only those to whom `clients` has issued a certificate.
    async fn start_mutual(clients: &Authority, settings: &[(&str, &str)]) -> Self {
        let authority = Authority::new("one");
        let ca = TlsFolder::new(&authority.issue());
        ca.put("ca.crt", &clients.pem());
        let file = ca.text("ca.crt");
        let file = [("server.tls_client_ca", file.as_str())];
        let fixture = Self::start_by(authority, &[&file, settings].concat()).await;
        let server = fixture.server.asked_by(fixture.authority.client(Some(&clients.issue())));
        Self { server, clients: Some(ca), ..fixture }
    }

    fn address(&self) -> SocketAddr {
        self.server.address
    }

    async fn grpc(
        &self,
        port: u16,
        identity: Option<&Pair>,
    ) -> Result<Client, tonic::transport::Error> {
        let channel: Channel = self.endpoint(port, identity).connect().await?;
        Ok(Client::new(channel))
    }

    fn endpoint(&self, port: u16, identity: Option<&Pair>) -> Endpoint {
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.authority.pem()));
        let tls = match identity {
            None => tls,
            Some(pair) => tls.identity(pair.tonic()),
        };
        let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
        endpoint.tls_config(tls).unwrap()
    }

    /// Whether who shows this is answered on new connections to this port, over REST in both versions and over
    /// gRPC, each of which has to say the same.
    async fn lets_in(&self, port: u16, identity: Option<&Pair>) -> bool {
        let client = || self.authority.client(identity);
        let mut told = Vec::new();
        for client in [client(), client().http1_only()] {
            let asked = client.build().unwrap().get(format!("https://localhost:{port}/livez"));
            told.push(asked.send().await.is_ok_and(|answer| answer.status() == 200));
        }
        told.push(self.answers_calls(port, identity).await);
        assert!(told.iter().all(|one| *one == told[0]), "over HTTP/2, HTTP/1.1, gRPC: {told:?}");
        told[0]
    }

    /// Whether who shows this is answered over gRPC on a new connection to this port.
    async fn answers_calls(&self, port: u16, identity: Option<&Pair>) -> bool {
        match self.grpc(port, identity).await {
            Ok(mut client) => client.model_infer(infer()).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Waits until the server has taken what is issued for clients by these.
    async fn take(&self, clients: &[&Authority]) {
        let before = self.server.process.log().matches("configuration read anew").count();
        let pem: String = clients.iter().map(|authority| authority.pem()).collect();
        self.clients.as_ref().unwrap().put("ca.crt", &pem);
        let looking = async {
            let mut looks = interval(Duration::from_millis(20));
            let now = || self.server.process.log().matches("configuration read anew").count();
            while now() == before {
                looks.tick().await;
            }
        };
        timeout(PATIENCE, looking).await.expect("the file is read anew");
    }

    /// Waits until connections that are new are shown this certificate.
    async fn shown(&self, pair: &Pair) {
        let looking = async {
            let mut looks = interval(Duration::from_millis(20));
            while !self.authority.is_shown(self.address(), pair).await {
                looks.tick().await;
            }
        };
        timeout(PATIENCE, looking).await.expect("the new certificate is shown");
    }

    /// Waits for an event on the configuration that is as wanted.
    async fn told(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            let mut ticks = interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                let page = self.server.get("/lifecycle/events?kind=configuration").await.ok();
                let events = page["events"].as_array().unwrap();
                if let Some(event) = events.iter().find(|event| wanted(&event["data"])) {
                    return event["data"].clone();
                }
            }
        };
        timeout(PATIENCE, asking).await.expect("it is told")
    }
}

fn input() -> Value {
    x(&[1, 4], &[0.0; 4])
}

fn infer() -> ModelInferRequest {
    message("add", &[1, 4], &[0.0; 4])
}

/// What the server answers to who speaks plain HTTP.
async fn plainly(address: SocketAddr) -> String {
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.ok();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn rest_and_grpc_are_spoken_over_tls() {
    let fixture = Fixture::start(&[]).await;
    let server = &fixture.server;
    assert_eq!(server.infer("add", &input()).await.output("y")[0], json!(1.0));
    let answer = server.request(reqwest::Method::GET, "/readyz").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    let only_1 = fixture.authority.client(None).http1_only().build().unwrap();
    let answer = only_1.get(server.url("/readyz")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
    let stranger = Authority::new("other").client(None).build().unwrap();
    assert!(stranger.get(server.url("/readyz")).send().await.unwrap_err().is_connect());
    for port in [fixture.address().port(), server.grpc_address().await.port()] {
        let mut client = fixture.grpc(port, None).await.unwrap();
        let answer = client.model_infer(infer()).await.unwrap();
        assert_eq!(answer.into_inner().model_name, "add");
    }
    assert_eq!(fixture.server.stop().await, 0);
}

#[tokio::test]
async fn versions_and_protocols_are_agreed_on() {
    let fixture = Fixture::start(&[]).await;
    let agreed = async |version, protocols: &[&str]| {
        let asked = fixture.authority.connect(fixture.address(), (&[version], protocols)).await;
        let stream = asked.unwrap();
        let connection = stream.get_ref().1;
        assert_eq!(connection.protocol_version(), Some(version.version));
        connection.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap())
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        assert_eq!(agreed(version, &["http/1.1", "h2"]).await.as_deref(), Some("h2"));
        assert_eq!(agreed(version, &["http/1.1"]).await.as_deref(), Some("http/1.1"));
        assert_eq!(agreed(version, &[]).await, None);
        let none = (&[version][..], &["spdy/3"][..]);
        assert!(fixture.authority.connect(fixture.address(), none).await.is_err());
    }
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_client_ca_is_not_let_in() {
    let clients = Authority::new("clients");
    let fixture = Fixture::start_mutual(&clients, &[]).await;
    let server = &fixture.server;
    assert_eq!(server.infer("add", &input()).await.output("y")[0], json!(1.0));
    let stranger = Authority::new("clients").issue();
    for identity in [None, Some(&fixture.pair), Some(&stranger)] {
        let client = fixture.authority.client(identity).build().unwrap();
        assert!(client.get(server.url("/livez")).send().await.is_err(), "{identity:?}");
    }
    let known = clients.issue();
    for port in [fixture.address().port(), server.grpc_address().await.port()] {
        for (identity, expected) in [(Some(&known), true), (None, false), (Some(&stranger), false)]
        {
            assert_eq!(fixture.answers_calls(port, identity).await, expected, "{identity:?}");
        }
    }
}

/// A CA that is renewed keeps its name, and goes by way of a file that has both.
#[tokio::test]
async fn the_client_ca_is_exchanged_while_the_server_runs() {
    let (old, new) = (Authority::new("clients"), Authority::new("clients"));
    let fixture = Fixture::start_mutual(&old, &[]).await;
    let (port, of_old, of_new) = (fixture.address().port(), old.issue(), new.issue());
    let mut kept = fixture.grpc(port, Some(&of_old)).await.unwrap();
    kept.model_infer(infer()).await.unwrap();
    let let_in = async || {
        [fixture.lets_in(port, Some(&of_old)).await, fixture.lets_in(port, Some(&of_new)).await]
    };
    assert_eq!(let_in().await, [true, false]);
    fixture.take(&[&old, &new]).await;
    assert_eq!(let_in().await, [true, true]);
    fixture.take(&[&new]).await;
    assert_eq!(let_in().await, [false, true]);
    let port_of_grpc = fixture.server.grpc_address().await.port();
    for (identity, expected) in [(&of_old, false), (&of_new, true)] {
        assert_eq!(fixture.answers_calls(port_of_grpc, Some(identity)).await, expected);
    }
    kept.model_infer(infer()).await.expect("what is open keeps what it was opened with");
    let changed = json!(["server.tls_client_ca"]);
    let server = fixture.server.asked_by(fixture.authority.client(Some(&of_new)));
    let fixture = Fixture { server, ..fixture };
    fixture.told(|told| told["changed"] == changed).await;
}

const MANAGED: [(&str, &str); 1] = [("server.management_listen", "127.0.0.1:0")];

#[tokio::test]
async fn management_is_spoken_over_tls_alone() {
    let fixture = Fixture::start(&MANAGED).await;
    let managed = fixture.server.management_address().await;
    let client = fixture.authority.client(None).build().unwrap();
    let status = async |at: SocketAddr, path: &str| {
        let answer = client.get(format!("https://{at}{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.version())
    };
    for path in ["/livez", "/metrics", "/lifecycle/models"] {
        assert_eq!(status(managed, path).await, (200, Version::HTTP_2), "{path}");
    }
    assert_eq!(status(fixture.address(), "/metrics").await.0, 404);
    let mut grpc = fixture.grpc(managed.port(), None).await.unwrap();
    grpc.repository_index(RepositoryIndexRequest::default()).await.unwrap();
    assert!(fixture.lets_in(managed.port(), None).await);
    let answer = plainly(managed).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https"), "{answer}");
    let stranger = Authority::new("other").client(None).build().unwrap();
    let asked = stranger.get(format!("https://{managed}/livez")).send().await;
    assert!(asked.unwrap_err().is_connect());
    let next = fixture.authority.issue();
    fixture.folder.replace(&next);
    fixture.shown(&next).await;
    assert!(fixture.authority.is_shown(managed, &next).await);
    assert_eq!(fixture.server.stop().await, 0);
}

#[tokio::test]
async fn management_asks_clients_for_certificates_too() {
    let clients = Authority::new("clients");
    let fixture = Fixture::start_mutual(&clients, &MANAGED).await;
    let (managed, known) = (fixture.server.management_address().await, clients.issue());
    let stranger = Authority::new("clients").issue();
    for (identity, expected) in [
        (Some(&known), true),
        (None, false),
        (Some(&fixture.pair), false),
        (Some(&stranger), false),
    ] {
        let is_let_in = fixture.lets_in(managed.port(), identity).await;
        assert_eq!(is_let_in, expected, "{identity:?}");
    }
    let client = fixture.authority.client(Some(&known)).build().unwrap();
    let metrics = client.get(format!("https://{managed}/metrics")).send().await.unwrap();
    assert_eq!(metrics.status(), 200);
    let mut grpc = fixture.grpc(managed.port(), Some(&known)).await.unwrap();
    grpc.repository_index(RepositoryIndexRequest::default()).await.unwrap();
}

#[tokio::test]
async fn who_speaks_plainly_is_told() {
    let fixture = Fixture::start(&[]).await;
    let answer = plainly(fixture.address()).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https"), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str::<Value>(body).unwrap();
    let mut noise = TcpStream::connect(fixture.address()).await.unwrap();
    noise.write_all(&[22, 3, 1, 255, 255, 0, 1]).await.unwrap();
    noise.write_all(&[7; 2000]).await.unwrap();
    let mut answer = Vec::new();
    noise.read_to_end(&mut answer).await.ok();
    assert_eq!(fixture.server.get("/livez").await.status, 200);
}

/// Clients that go on until they are told.
#[derive(Default)]
struct Load {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<usize>>,
}

impl Load {
    /// Over REST, each second one on a new connection each time.
    fn over_rest(fixture: &Fixture) -> Self {
        let mut load = Self::default();
        for kept in [0, 8, 0, 8] {
            let client = fixture.authority.client(None).pool_max_idle_per_host(kept);
            let client = client.build().unwrap();
            let infer = client.post(fixture.server.url("/v2/models/add/infer"));
            let infer = infer.body(input().to_string());
            load.asks(move || {
                let asked = infer.try_clone().unwrap().send();
                async { assert_eq!(asked.await.expect("none is lost").status(), 200) }
            });
        }
        load
    }

    /// Over gRPC to both ports, on a channel that is kept and on a new one each time.
    async fn over_grpc(fixture: &Fixture) -> Self {
        let mut load = Self::default();
        for port in [fixture.address().port(), fixture.server.grpc_address().await.port()] {
            let kept = fixture.grpc(port, None).await.unwrap();
            load.asks(move || called(kept.clone()));
            let endpoint = fixture.endpoint(port, None);
            load.asks(move || {
                let endpoint = endpoint.clone();
                async move { called(Client::new(endpoint.connect().await.expect("it opens"))).await }
            });
        }
        load
    }

    /// One more, which asks so.
    fn asks<F>(&mut self, mut ask: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let is_over = Arc::clone(&self.is_over);
        self.clients.push(tokio::spawn(async move {
            let mut answered = 0;
            while !is_over.load(Ordering::Relaxed) {
                ask().await;
                answered += 1;
            }
            answered
        }));
    }

    /// How often each was answered.
    async fn end(self) -> Vec<usize> {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = join_all(self.clients).await;
        ended.into_iter().map(|answered| answered.expect("no request has failed")).collect()
    }
}

async fn called(mut client: Client) {
    let answer = client.model_infer(infer()).await.expect("none is lost");
    assert_eq!(answer.into_inner().model_name, "add");
}

/// Exchanges certificates while clients ask, in both ways that there are; the last one.
async fn exchange(fixture: &Fixture, load: Load) -> Pair {
    let mut last = None;
    for _ in 0..2 {
        let next = fixture.authority.issue();
        fixture.folder.replace(&next);
        fixture.shown(&next).await;
    }
    for generation in ["..1", "..2", "..3"] {
        let next = fixture.authority.issue();
        fixture.folder.link(generation, &next);
        fixture.shown(&next).await;
        last = Some(next);
    }
    let answered = load.end().await;
    assert!(answered.iter().all(|count| *count > 25), "only {answered:?} requests");
    let changed = json!(["server.tls_certificate", "server.tls_key"]);
    fixture.told(|told| told["changed"] == changed).await;
    last.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_exchanged_under_load_without_a_failed_request() {
    let fixture = Fixture::start(&[]).await;
    exchange(&fixture, Load::over_rest(&fixture)).await;
    assert_eq!(fixture.server.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_exchanged_without_a_failed_call() {
    let fixture = Fixture::start(&[]).await;
    let last = exchange(&fixture, Load::over_grpc(&fixture).await).await;
    let address = fixture.server.grpc_address().await;
    assert!(fixture.authority.is_shown(address, &last).await);
    assert_eq!(fixture.server.stop().await, 0);
}

#[tokio::test]
async fn a_broken_pair_changes_nothing_and_is_told() {
    let fixture = Fixture::start(&[]).await;
    fixture.folder.put("tls.key", &fixture.authority.issue().key);
    let told = fixture.told(|told| told["detail"] != "").await;
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("do not go together") && detail.contains("server.tls_key"), "{detail}");
    fixture.server.process.logged(&["the configuration stays as it is", "server.tls_key"]).await;
    assert!(fixture.authority.is_shown(fixture.address(), &fixture.pair).await);
    assert_eq!(fixture.server.get("/readyz").await.status, 200);
    std::fs::remove_file(fixture.folder.path("tls.crt")).unwrap();
    fixture.told(|told| told["detail"].as_str().unwrap().contains("cannot read")).await;
    assert!(fixture.authority.is_shown(fixture.address(), &fixture.pair).await);
    let next = fixture.authority.issue();
    fixture.folder.replace(&next);
    fixture.shown(&next).await;
}

#[tokio::test]
async fn a_signal_has_the_files_read_at_once() {
    let fixture = Fixture::start(&[]).await;
    fixture.folder.put("tls.crt", "no certificate");
    fixture.server.process.signal("HUP");
    let told = |told: &Value| told["detail"].as_str().unwrap().contains("server.tls_certificate");
    fixture.told(told).await;
    assert!(fixture.authority.is_shown(fixture.address(), &fixture.pair).await);
    let next = fixture.authority.issue();
    fixture.folder.replace(&next);
    fixture.server.process.signal("HUP");
    fixture.shown(&next).await;
}

#[test]
fn files_that_cannot_be_used_end_the_start() {
    let authority = Authority::new("one");
    let folder = TlsFolder::new(&authority.issue());
    folder.put("other.key", &authority.issue().key);
    folder.put("text", "not PEM");
    folder.put("damaged", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let path = |name: &str| folder.text(name);
    let check = |settings: &[(&str, String)], expected: &[&str]| {
        let mut command = onward();
        command.args(["serve", "--server.listen", "127.0.0.1:0"]);
        for (name, value) in settings {
            command.arg(format!("--server.{name}")).arg(value);
        }
        let (code, _, error) = run(&mut command);
        assert_eq!(code, 78, "{error}");
        for text in expected {
            assert!(error.contains(text), "no {text:?} in {error}");
        }
    };
    let (certificate, key, ca) = ("tls_certificate", "tls_key", "tls_client_ca");
    let pair = |crt: &str, name: &str| vec![(certificate, path(crt)), (key, path(name))];
    check(&[(certificate, path("tls.crt"))], &["TLS needs server.tls_key"]);
    check(&[(key, path("tls.key"))], &["TLS needs server.tls_certificate"]);
    check(&[(ca, path("tls.crt"))], &["TLS needs server.tls_certificate"]);
    check(&pair("nowhere", "tls.key"), &["cannot read", "nowhere", "server.tls_certificate"]);
    check(&pair("text", "tls.key"), &["no certificate in PEM", "server.tls_certificate"]);
    check(&pair("tls.crt", "text"), &["no private key in PEM", "server.tls_key"]);
    check(&pair("tls.crt", "other.key"), &["do not go together", "server.tls_key"]);
    check(&pair("damaged", "tls.key"), &["server.tls_certificate"]);
    let with_ca = |name| [pair("tls.crt", "tls.key"), vec![(ca, path(name))]].concat();
    check(&with_ca("text"), &["no certificate in PEM", "server.tls_client_ca"]);
    check(&with_ca("damaged"), &["server.tls_client_ca"]);
}

/// With a certificate that clients have to show, the server's own has to be one of their CA.
#[tokio::test]
async fn health_asks_over_tls() {
    for mutual in [false, true] {
        let authority = Authority::new("one");
        let ca = TlsFolder::new(&authority.issue());
        ca.put("ca.crt", &authority.pem());
        let path = ca.text("ca.crt");
        let settings = [("server.tls_client_ca", path.as_str())];
        let settings = if mutual { &settings[..] } else { &[] };
        let fixture = Fixture::start_by(authority, settings).await;
        let mut command = onward();
        command.arg("health").env("ONWARD_SERVER_LISTEN", fixture.address().to_string());
        command.arg("--server.tls_certificate").arg(fixture.folder.path("tls.crt"));
        command.arg("--server.tls_key").arg(fixture.folder.path("tls.key"));
        for (key, value) in settings {
            command.arg(format!("--{key}")).arg(value);
        }
        let (code, _, error) = blocking(move || run(&mut command)).await;
        assert_eq!(code, 0, "{error}");
    }
}

/// Each request on a connection of its own, until there is nobody to connect to.
async fn ask_until_refused(request: reqwest::RequestBuilder) -> usize {
    let mut answered = 0;
    loop {
        match request.try_clone().unwrap().send().await {
            Ok(answer) => {
                assert_eq!(answer.status(), 200);
                answered += 1;
            }
            Err(error) if is_refused(&error) => return answered,
            Err(lost) => panic!("a request was lost after {answered}: {lost:?}"),
        }
    }
}

/// Whether nobody listens any more, rather than that somebody has hung up. Whom the system was about to
/// connect when the socket was closed is reset rather than refused, and has sent nothing either.
fn is_refused(error: &reqwest::Error) -> bool {
    let (mut cause, mut was_connecting) = (error.source(), false);
    while let Some(error) = cause {
        was_connecting |= error.to_string().starts_with("tcp connect error");
        if let Some(system) = error.downcast_ref::<io::Error>() {
            let is_reset = system.kind() == io::ErrorKind::ConnectionReset;
            return system.kind() == io::ErrorKind::ConnectionRefused || was_connecting && is_reset;
        }
        cause = error.source();
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_loses_nothing() {
    for _ in 0..3 {
        let mut fixture = Fixture::start(&[("lifecycle.pre_stop_delay", "300ms")]).await;
        let asking: Vec<_> = (0..8)
            .map(|number: usize| {
                let client = fixture.authority.client(None).pool_max_idle_per_host(0);
                let client = if number.is_multiple_of(2) { client.http1_only() } else { client };
                let url = fixture.server.url("/v2/models/add/infer");
                let infer = client.build().unwrap().post(url).body(input().to_string());
                tokio::spawn(ask_until_refused(infer))
            })
            .collect();
        fixture.server.process.signal("TERM");
        for answered in join_all(asking).await {
            assert!(answered.unwrap() > 0);
        }
        assert_eq!(fixture.server.process.exit_code().await, 0);
    }
}

/// The answer is larger than what the system and the encryption take ahead of its reader.
#[tokio::test]
async fn an_answer_that_is_read_slowly_is_read_to_its_end() {
    for over_http_1 in [true, false] {
        let mut fixture = Fixture::start(&[]).await;
        let client = fixture.authority.client(None);
        let client = if over_http_1 { client.http1_only() } else { client };
        let body = x(&[2_000_000], &vec![0.123_456_78; 2_000_000]).to_string();
        let request = client.build().unwrap().post(fixture.server.url("/v2/models/id/infer"));
        let mut answer = request.body(body).send().await.unwrap();
        let length = usize::try_from(answer.content_length().unwrap()).unwrap();
        let mut read = answer.chunk().await.unwrap().unwrap().len();
        fixture.server.process.signal("TERM");
        fixture.server.process.logged(&["STOPPING"]).await;
        // Longer than a connection that does nothing is kept.
        tokio::time::sleep(Duration::from_secs(4)).await;
        while let Some(chunk) = answer.chunk().await.unwrap() {
            read += chunk.len();
        }
        assert_eq!(read, length);
        assert_eq!(fixture.server.process.exit_code().await, 0);
    }
}

#[tokio::test]
async fn handshakes_that_are_stuck_hold_nothing_up() {
    let mut fixture = Fixture::start(&[]).await;
    let mut stuck = Vec::new();
    for number in 0..700 {
        let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]).await.unwrap();
        }
        stuck.push(stream);
    }
    let begun = Instant::now();
    for _ in 0..10 {
        // A handshake each.
        let client = fixture.authority.client(None).build().unwrap();
        let answer = client.get(fixture.server.url("/livez")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The first are given up for the others, the last after a while.
    for stream in &mut stuck {
        let closed = timeout(Duration::from_secs(20), stream.read(&mut [0; 64])).await;
        assert!(matches!(closed.expect("it is closed"), Ok(0) | Err(_)));
    }
    fixture.server.process.signal("TERM");
    assert_eq!(fixture.server.process.exit_code().await, 0);
}
