//! Every call of gRPC with everybody who may make it.

use onward::auth::{Deed, Reach, Role, Rule};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::{Keys, Verdict, Who, guarded};
use crate::support::grpc::proto::ModelStreamInferResponse;
use crate::support::grpc::{channel, connect, refused, x};

/// What is common to all messages: names are in one of two fields.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    first: String,
    #[prost(string, tag = "2")]
    second: String,
}

impl Named {
    fn of(path: &str, model: &str) -> Self {
        let model = model.to_owned();
        let is_second = ["Load", "Unload", "TraceSetting"].iter().any(|name| path.ends_with(name));
        if is_second {
            Self { second: model, ..Self::default() }
        } else {
            Self { first: model, ..Self::default() }
        }
    }
}

/// Makes a call and reads the first message of a stream of inferences.
async fn call(
    channel: &Channel,
    key: Option<&str>,
    (path, model): (&str, &str),
) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(Named::of(path, model));
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    let place = PathAndQuery::try_from(path).unwrap();
    let codec = ProstCodec::<Named, ModelStreamInferResponse>::default();
    let mut answers = grpc.server_streaming(request, place, codec).await?.into_inner();
    if !path.ends_with("ModelStreamInfer") {
        return Ok(());
    }
    let answer = answers.message().await?.unwrap();
    if answer.error_message.contains("may not do this") {
        return Err(Status::permission_denied(answer.error_message));
    }
    Ok(())
}

fn verdict(result: Result<(), Status>) -> Verdict {
    match result.map_err(|status| status.code()) {
        Err(Code::Unauthenticated) => Verdict::Unknown,
        Err(Code::PermissionDenied) => Verdict::Forbidden,
        _ => Verdict::Allowed,
    }
}

#[tokio::test]
async fn every_call_lets_in_whom_its_rule_says() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    for address in [server.address, server.grpc_address().await] {
        let channel = channel(address).await;
        for (path, rule) in onward::grpc::rules() {
            let of_model = matches!(rule, Rule::Needs(_, Reach::Model));
            let models: &[&str] = if of_model { &["own", "other", "none"] } else { &[""] };
            for (model, who) in models.iter().flat_map(|model| Who::ALL.map(|who| (*model, who))) {
                let got = verdict(call(&channel, keys.of(who), (path, model)).await);
                let expected = who.expected(rule, of_model.then_some(model));
                assert_eq!(got, expected, "{path} of {model:?} by {who:?}");
            }
        }
        // What nobody has listed is nobody's but who may do everything.
        for who in Who::ALL {
            let path = "/inference.GRPCInferenceService/Nothing";
            let got = verdict(call(&channel, keys.of(who), (path, "own")).await);
            let is_allowed = who.role() == Some(Role::Manage) && !who.is_scoped();
            assert_eq!(got == Verdict::Allowed, is_allowed, "{who:?}");
        }
        let traces = "/inference.GRPCInferenceService/TraceSetting";
        let of_all = verdict(call(&channel, keys.of(Who::OwnManage), (traces, "")).await);
        assert_eq!(of_all, Verdict::Forbidden, "without a model, it is of all");
    }
}

/// The calls with another rule than their names tell, and why.
const EXCEPTIONS: [(&str, Rule, &str); 6] = [
    ("GRPCInferenceService/ServerLive", Rule::Open, "a probe has no credential"),
    ("GRPCInferenceService/ServerReady", Rule::Open, "a probe has no credential"),
    ("Health/Check", Rule::Open, "a probe has no credential"),
    ("Health/Watch", Rule::Open, "a probe has no credential"),
    (
        "GRPCInferenceService/SystemSharedMemoryStatus",
        Rule::Needs(Deed::Manage, Reach::Server),
        "no memory is shared, so that nobody has use for it",
    ),
    (
        "GRPCInferenceService/CudaSharedMemoryStatus",
        Rule::Needs(Deed::Manage, Reach::Server),
        "no memory is shared, so that nobody has use for it",
    ),
];

/// Whether a rule is what the name of the call tells, of which the table of calls knows nothing.
fn is_usual(call: &str, rule: Rule) -> bool {
    let Rule::Needs(deed, _) = rule else { return false };
    let changes = ["Load", "Unload", "Register", "Unregister", "Setting", "Settings"];
    if changes.iter().any(|name| call.ends_with(name)) {
        deed == Deed::Manage
    } else if call.ends_with("Infer") {
        deed == Deed::Infer
    } else {
        [Deed::Describe, Deed::Read].contains(&deed)
    }
}

#[test]
fn rules_are_what_names_tell() {
    let mut exceptions = 0;
    for (path, rule) in onward::grpc::rules() {
        let usual = is_usual(path, rule);
        match EXCEPTIONS.iter().find(|(call, ..)| path.ends_with(call)) {
            None => assert!(usual, "{path} has {rule:?}"),
            Some((_, expected, why)) => {
                assert_eq!((rule, usual), (*expected, false), "{path}: {why}");
                exceptions += 1;
            }
        }
    }
    assert_eq!(exceptions, EXCEPTIONS.len(), "each is a call");
}

#[tokio::test]
async fn a_refusal_has_its_code() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    let mut client = connect(server.address).await;
    let ask = |key: &str| {
        let mut request = Request::new(x("other", &[1, 4], &[0.0; 4]));
        request.metadata_mut().insert("x-api-key", key.parse().unwrap());
        request
    };
    let nobody = client.model_infer(x("other", &[1, 4], &[0.0; 4])).await.unwrap_err();
    refused(&nobody, (Code::Unauthenticated, "unauthenticated"), &["needs a credential"]);
    let wrong = client.model_infer(ask("onw_wrong")).await.unwrap_err();
    refused(&wrong, (Code::Unauthenticated, "invalid_credential"), &["not known"]);
    let own = client.model_infer(ask(keys.of(Who::OwnInfer).unwrap())).await.unwrap_err();
    refused(&own, (Code::PermissionDenied, "forbidden"), &["key:OwnInfer may not"]);
    let infer = client.model_infer(ask(keys.of(Who::Infer).unwrap())).await;
    assert!(infer.is_ok());
}

/// Whoever may be anybody is given little room.
#[tokio::test]
async fn what_everybody_may_ask_is_small() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    let channel = channel(server.address).await;
    for path in ["ServerLive", "ServerReady"] {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let request = Request::new(Named { first: "x".repeat(100_000), ..Named::default() });
        let place = format!("/inference.GRPCInferenceService/{path}");
        let place = PathAndQuery::try_from(place).unwrap();
        let codec = ProstCodec::<Named, ModelStreamInferResponse>::default();
        let refused = grpc.unary(request, place, codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{path}: {refused:?}");
    }
}
