"""Triton's client over gRPC."""

import asyncio
import json
import queue

import grpc
import numpy
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from conftest import PROJECT


@pytest.fixture(scope="module", params=["grpc", "rest"])
def address(server, request):
    """gRPC's own port, and REST's, which speaks it too."""
    return server[request.param]


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(address) as client:
        yield client


def sample(name):
    body = json.loads((PROJECT / "models/digits/samples" / name).read_text())
    return numpy.array(body["inputs"][0]["data"], dtype=numpy.float32)


def image(values=None):
    values = sample("digit-7.json") if values is None else values
    tensor = triton.InferInput("image", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    return tensor


def test_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("nobody")


def test_metadata(client):
    assert client.get_server_metadata().name == "onward"
    model = client.get_model_metadata("digits", as_json=True)
    assert model["platform"] == "onnxruntime_onnx"
    assert [tensor["name"] for tensor in model["inputs"]] == ["image"]
    assert model["inputs"][0]["shape"] == ["-1", "8", "8"]


def test_config(client):
    config = client.get_model_config("digits").config
    assert (config.name, config.backend) == ("digits", "onnxruntime")
    assert config.max_batch_size > 0
    assert list(config.input[0].dims) == [8, 8]
    assert config.input[0].data_type == 11


def test_infer(client):
    result = client.infer("digits", [image()], request_id="mine", client_timeout=30)
    response = result.get_response()
    assert (response.id, response.model_name) == ("mine", "digits")
    names = [output.name for output in response.outputs]
    tensors = [result.as_numpy(name) for name in names]
    assert all(tensor.shape[0] == 1 for tensor in tensors)
    asked = [triton.InferRequestedOutput(name) for name in reversed(names)]
    again = client.infer("digits", [image()], outputs=asked).get_response()
    assert [output.name for output in again.outputs] == list(reversed(names))


def test_classification(client):
    names = [output.name for output in client.get_model_metadata("digits").outputs]
    scores = next(name for name in names if "prob" in name or "score" in name or "logit" in name)
    asked = [triton.InferRequestedOutput(scores, class_count=3)]
    classes = client.infer("digits", [image()], outputs=asked).as_numpy(scores)
    assert classes.shape == (1, 3)
    assert classes[0][0].decode().split(":")[1] == "7"


def test_statistics(client):
    before = client.get_inference_statistics("digits", "1").model_stats[0]
    client.infer("digits", [image(numpy.repeat(sample("digit-7.json"), 3, axis=0))])
    after = client.get_inference_statistics("digits").model_stats[0]
    assert after.inference_count == before.inference_count + 3
    assert after.execution_count == before.execution_count + 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert {model.name for model in client.get_inference_statistics().model_stats} > {"digits"}


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client, algorithm):
    batch = numpy.repeat(sample("digit-7.json"), 500, axis=0)
    plain = client.infer("digits", [image(batch)]).get_response()
    packed = client.infer("digits", [image(batch)], compression_algorithm=algorithm)
    assert packed.get_response().raw_output_contents == plain.raw_output_contents


def test_parameters(client):
    client.infer("digits", [image()], parameters={"colour": "blue", "weight": 1}, priority=1)
    with pytest.raises(InferenceServerException, match="deadline") as late:
        client.infer("digits", [image()], timeout=1)
    assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    with pytest.raises(InferenceServerException, match="triton_"):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(client._channel)
        request = service_pb2.ModelInferRequest(model_name="digits")
        request.parameters["triton_x"].bool_param = True
        try:
            stub.ModelInfer(request)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert dict(error.trailing_metadata())["onward-error-code"] == "invalid_request"
            raise InferenceServerException(error.details()) from error


def test_strings(client):
    texts = numpy.array(["guten Morgen".encode(), "good morning".encode()], dtype=object)
    tensor = triton.InferInput("text", [2], "BYTES")
    tensor.set_data_from_numpy(texts)
    labels = client.infer("language", [tensor]).as_numpy("label")
    assert len(labels) == 2 and all(isinstance(label, bytes) for label in labels)


@pytest.mark.parametrize("wrong", ["FP64", "unknown", "shape"])
def test_mistakes(client, wrong):
    values = sample("digit-7.json")
    tensor = {
        "FP64": lambda: triton.InferInput("image", [1, 8, 8], "FP64"),
        "unknown": lambda: triton.InferInput("nothing", [1, 8, 8], "FP32"),
        "shape": lambda: triton.InferInput("image", [64], "FP32"),
    }[wrong]()
    dtype = numpy.float64 if wrong == "FP64" else numpy.float32
    tensor.set_data_from_numpy(values.astype(dtype).reshape(tensor.shape()))
    with pytest.raises(InferenceServerException) as error:
        client.infer("digits", [tensor])
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "image" in error.value.message() and len(error.value.message()) > 20


def test_unknown_model(client):
    with pytest.raises(InferenceServerException, match="Request for unknown model") as error:
        client.infer("nobody", [image()])
    assert error.value.status() == "StatusCode.NOT_FOUND"


def test_stream(client):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for number in range(20):
        name = "nobody" if number == 7 else "digits"
        client.async_stream_infer(name, [image()], request_id=str(number))
    for number in range(20):
        result, error = answers.get(timeout=30)
        if number == 7:
            assert "Request for unknown model" in error.message()
        else:
            assert error is None and result.get_response().id == str(number)
    client.stop_stream()


def test_async(address):
    async def infer():
        async with triton_aio.InferenceServerClient(address) as client:
            results = await asyncio.gather(
                *(client.infer("digits", [image()], request_id=str(n)) for n in range(32))
            )
            return [result.get_response().id for result in results]

    assert asyncio.run(infer()) == [str(number) for number in range(32)]


def test_repository(client):
    index = {model.name: model.state for model in client.get_model_repository_index().models}
    assert index["wine"] == "READY"
    client.unload_model("wine")
    assert not client.is_model_ready("wine")
    client.load_model("wine")
    assert client.is_model_ready("wine")
    with pytest.raises(InferenceServerException, match="nobody"):
        client.load_model("nobody")


def test_a_load_brings_its_own(client):
    graph = (PROJECT / "models/digits/1/model.onnx").read_bytes()
    client.load_model("brought", config="{}", files={"file:3/model.onnx": graph})
    assert list(client.get_model_metadata("brought").versions) == ["3"]
    client.load_model("brought", config='{"max_batch_size": "4"}', files={"file:3/model.onnx": graph})
    assert client.get_model_config("brought").config.max_batch_size == 4
    with pytest.raises(InferenceServerException, match="'config'"):
        client.load_model("brought", files={"file:3/model.onnx": graph})
    client.unload_model("brought")


def test_the_log_is_changed(client):
    told = client.update_log_settings({"log_verbose_level": 1}, as_json=True)["settings"]
    assert told["log_verbose_level"] == {"uint32_param": 1}
    client.update_log_settings({"log_verbose_level": 0})
    told = client.get_log_settings(as_json=True)["settings"]
    assert told["log_info"] == {"bool_param": True}
    with pytest.raises(InferenceServerException, match="log_file"):
        client.update_log_settings({"log_file": "/tmp/log"})


def test_traces_are_changed(client):
    settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "5"}
    told = client.update_trace_settings("digits", settings, as_json=True)["settings"]
    assert told["trace_level"]["value"] == ["TIMESTAMPS"]
    cleared = {name: None for name in settings}
    told = client.update_trace_settings("digits", cleared, as_json=True)["settings"]
    assert told == client.get_trace_settings(as_json=True)["settings"]


def test_shared_memory_is_not_offered(client):
    with pytest.raises(InferenceServerException) as error:
        client.get_system_shared_memory_status()
    assert error.value.status() == "StatusCode.UNIMPLEMENTED"
