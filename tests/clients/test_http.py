"""Triton's client over REST, with every method that it has."""

import asyncio
import gzip
import json
import zlib

import numpy
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
import urllib3
from tritonclient.utils import InferenceServerException

from conftest import PROJECT


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server["rest"], concurrency=4) as client:
        yield client


def sample(name):
    body = json.loads((PROJECT / "models/digits/samples" / name).read_text())
    return numpy.array(body["inputs"][0]["data"], dtype=numpy.float32)


def image(values=None, binary=True):
    values = sample("digit-7.json") if values is None else values
    tensor = triton.InferInput("image", list(values.shape), "FP32")
    return tensor.set_data_from_numpy(values, binary_data=binary)


def texts(*elements, binary=True):
    array = numpy.array(elements, dtype=object)
    tensor = triton.InferInput("text", list(array.shape), "BYTES")
    return tensor.set_data_from_numpy(array, binary_data=binary)


def wine(*binary):
    """Both of wine's inputs, each as bytes or as JSON."""
    body = json.loads((PROJECT / "models/wine/samples/two.json").read_text())
    dtypes = {"FP32": numpy.float32, "INT64": numpy.int64}
    tensors = []
    for given, as_bytes in zip(body["inputs"], binary, strict=True):
        values = numpy.array(given["data"], dtype=dtypes[given["datatype"]])
        tensor = triton.InferInput(given["name"], given["shape"], given["datatype"])
        tensors.append(tensor.set_data_from_numpy(values.reshape(given["shape"]), as_bytes))
    return tensors


def scores(client):
    names = [output["name"] for output in client.get_model_metadata("digits")["outputs"]]
    return next(name for name in names if "prob" in name or "score" in name or "logit" in name)


def arrays(result):
    return {output["name"]: result.as_numpy(output["name"]) for output in outputs(result)}


def outputs(result):
    return result.get_response()["outputs"]


def is_binary(output):
    return "binary_data_size" in output.get("parameters", {})


def same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        numpy.testing.assert_array_equal(values, other[name])


def test_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "77")
    assert not client.is_model_ready("nobody")


def test_metadata(client):
    server = client.get_server_metadata()
    assert server["name"] == "onward"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(server["extensions"])
    model = client.get_model_metadata("digits")
    assert model["platform"] == "onnxruntime_onnx"
    assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 8, 8]}]
    assert client.get_model_metadata("digits", "1")["versions"] == ["1"]
    with pytest.raises(InferenceServerException, match="Request for unknown model") as error:
        client.get_model_metadata("nobody")
    assert error.value.status() == "404"


def test_config(client):
    config = client.get_model_config("digits")
    assert (config["name"], config["backend"]) == ("digits", "onnxruntime")
    assert config["max_batch_size"] > 0
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [8, 8]
    assert client.get_model_config("digits", "1")["name"] == "digits"


def test_statistics(client):
    before = client.get_inference_statistics("digits", "1")["model_stats"][0]
    client.infer("digits", [image(numpy.repeat(sample("digit-7.json"), 3, axis=0))], "1")
    after = client.get_inference_statistics("digits", "1")["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 3
    assert after["execution_count"] == before["execution_count"] + 1
    success = [counts["inference_stats"]["success"]["count"] for counts in (before, after)]
    assert success[1] == success[0] + 1
    every = client.get_inference_statistics()["model_stats"]
    assert {"digits", "wine", "language"} <= {model["name"] for model in every}


def test_repository(client):
    def state():
        index = client.get_model_repository_index()
        return {model["name"]: model.get("state") for model in index}["wine"]

    assert state() == "READY"
    client.unload_model("wine")
    assert state() == "UNAVAILABLE"
    assert not client.is_model_ready("wine")
    with pytest.raises(InferenceServerException) as error:
        client.infer("wine", wine(True, True))
    assert error.value.status() == "404"
    client.load_model("wine")
    assert client.is_model_ready("wine")
    client.unload_model("wine", unload_dependents=True)
    client.load_model("wine")
    with pytest.raises(InferenceServerException, match="nobody") as error:
        client.load_model("nobody")
    assert error.value.status() in ("400", "404")
    with pytest.raises(InferenceServerException, match="nobody") as error:
        client.unload_model("nobody")
    assert error.value.status() == "404"


@pytest.mark.parametrize("into", [True, False])
@pytest.mark.parametrize("out", [True, False, None])
def test_infer(client, into, out):
    names = [output["name"] for output in client.get_model_metadata("digits")["outputs"]]
    asked = [triton.InferRequestedOutput(name, binary_data=out) for name in reversed(names)]
    asked = None if out is None else asked
    result = client.infer("digits", [image(binary=into)], outputs=asked, request_id="mine")
    response = result.get_response()
    assert (response["id"], response["model_name"]) == ("mine", "digits")
    # A client that asks for nothing in particular asks for bytes.
    assert all(is_binary(output) is not (out is False) for output in outputs(result))
    told = [output["name"] for output in outputs(result)]
    assert told == (names if out is None else names[::-1])
    same(arrays(result), arrays(client.infer("digits", [image()])))


@pytest.mark.parametrize("binary", [(True, False), (False, True), (False, False)])
def test_mixed(client, binary):
    names = [output["name"] for output in client.get_model_metadata("wine")["outputs"]]
    count = len(client.get_model_metadata("wine")["inputs"])
    assert (count, len(names) > 1) == (2, True)
    ways = [place % 2 == 0 for place in range(len(names))]
    asked = [triton.InferRequestedOutput(*pair) for pair in zip(names, ways, strict=True)]
    result = client.infer("wine", wine(*binary), outputs=asked)
    assert [is_binary(output) for output in outputs(result)] == ways
    same(arrays(result), arrays(client.infer("wine", wine(True, True))))


@pytest.mark.parametrize("binary", [True, False])
def test_strings(client, binary):
    tensor = texts("guten Morgen, wie geht es?".encode(), b"good morning", binary=binary)
    asked = [triton.InferRequestedOutput("label", binary_data=binary)]
    labels = client.infer("language", [tensor], outputs=asked).as_numpy("label")
    kind = bytes if binary else str
    assert len(labels) == 2 and all(isinstance(label, kind) for label in labels)


def test_raw(server, client):
    """A body without any JSON: the client has no method for that, but reads the answer."""
    values = sample("digit-7.json")
    answer = urllib3.request(
        "POST", f"http://{server['rest']}/v2/models/digits/infer", body=values.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    length = int(answer.headers["inference-header-content-length"])
    result = client.parse_response_body(answer.data, header_length=length)
    assert all(is_binary(output) for output in outputs(result))
    same(arrays(result), arrays(client.infer("digits", [image()])))


@pytest.mark.parametrize("binary", [True, False])
def test_classification(client, binary):
    name = scores(client)
    asked = [triton.InferRequestedOutput(name, binary_data=binary, class_count=3)]
    classes = client.infer("digits", [image()], outputs=asked).as_numpy(name)
    assert classes.shape == (1, 3)
    best = classes[0][0].decode() if binary else classes[0][0]
    assert best.split(":")[1] == "7"


@pytest.mark.parametrize("upload", ["gzip", "deflate", None])
@pytest.mark.parametrize("answer", ["gzip", "deflate", None])
@pytest.mark.parametrize("binary", [True, False])
def test_compression(client, upload, answer, binary):
    batch = numpy.repeat(sample("digit-7.json"), 200, axis=0)
    asked = [triton.InferRequestedOutput(scores(client), binary_data=binary)]
    result = client.infer(
        "digits", [image(batch, binary)], outputs=asked, request_compression_algorithm=upload,
        response_compression_algorithm=answer,
    )
    same(arrays(result), arrays(client.infer("digits", [image(batch)], outputs=asked)))


@pytest.mark.parametrize("unpack", [gzip.decompress, zlib.decompress])
def test_an_answer_is_compressed_on_the_wire(server, client, unpack):
    batch = numpy.repeat(sample("digit-7.json"), 200, axis=0)
    body, length = client.generate_request_body([image(batch)])
    coding = "gzip" if unpack is gzip.decompress else "deflate"
    answer = urllib3.request(
        "POST", f"http://{server['rest']}/v2/models/digits/infer", body=body,
        headers={"Inference-Header-Content-Length": str(length), "Accept-Encoding": coding},
        decode_content=False,
    )
    assert (answer.status, answer.headers["content-encoding"]) == (200, coding)
    header = int(answer.headers["inference-header-content-length"])
    unpacked = client.parse_response_body(unpack(answer.data), header_length=header)
    packed = client.parse_response_body(
        answer.data, header_length=header, content_encoding=coding
    )
    same(arrays(unpacked), arrays(packed))


def test_bodies(client):
    body, length = client.generate_request_body([image(binary=False)])
    assert length is None or length == len(body)
    assert json.loads(body)["inputs"][0]["datatype"] == "FP32"
    read = client.parse_response_body(json.dumps(
        {"model_name": "x", "outputs": [
            {"name": "y", "datatype": "INT64", "shape": [1], "data": [3]}
        ]}
    ).encode())
    assert read.as_numpy("y").tolist() == [3]
    assert read.get_output("y")["shape"] == [1]


def test_async(client):
    names = [str(number) for number in range(16)]
    pending = [client.async_infer("digits", [image()], request_id=name) for name in names]
    results = [one.get_result(timeout=30) for one in pending]
    assert [result.get_response()["id"] for result in results] == names
    late = client.async_infer("nobody", [image()])
    with pytest.raises(InferenceServerException, match="Request for unknown model"):
        late.get_result(timeout=30)


def test_parameters(client):
    client.infer("digits", [image()], parameters={"colour": "blue", "weight": 1}, priority=1)
    with pytest.raises(InferenceServerException, match="deadline") as late:
        client.infer("digits", [image()], timeout=1)
    assert late.value.status() == "504"
    with pytest.raises(InferenceServerException) as error:
        client.infer("digits", [image()], sequence_id=7, sequence_start=True)
    assert error.value.status() == "501"
    client.infer("digits", [image()], headers={"X-Onward-Routing-Key": "me"}, query_params={"a": 1})


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("wrong", ["FP64", "unknown", "shape", "output"])
def test_mistakes(client, wrong, binary):
    values = sample("digit-7.json")
    tensor = {
        "FP64": lambda: triton.InferInput("image", [1, 8, 8], "FP64"),
        "unknown": lambda: triton.InferInput("nothing", [1, 8, 8], "FP32"),
        "shape": lambda: triton.InferInput("image", [64], "FP32"),
        "output": lambda: triton.InferInput("image", [1, 8, 8], "FP32"),
    }[wrong]()
    dtype = numpy.float64 if wrong == "FP64" else numpy.float32
    tensor.set_data_from_numpy(values.astype(dtype).reshape(tensor.shape()), binary_data=binary)
    asked = [triton.InferRequestedOutput("nothing")] if wrong == "output" else None
    with pytest.raises(InferenceServerException) as error:
        client.infer("digits", [tensor], outputs=asked)
    assert error.value.status() == "400"
    assert ("nothing" if wrong == "output" else "image") in error.value.message()


def test_unknown_version(client):
    with pytest.raises(InferenceServerException, match="77") as error:
        client.infer("digits", [image()], model_version="77")
    assert error.value.status() == "404"


@pytest.mark.parametrize("memory", ["system", "cuda"])
def test_shared_memory_is_not_offered(client, memory):
    """Neither is it announced, so that no client begins with it."""
    extensions = client.get_server_metadata()["extensions"]
    assert f"{memory}_shared_memory" not in extensions
    status = getattr(client, f"get_{memory}_shared_memory_status")
    unregister = getattr(client, f"unregister_{memory}_shared_memory")
    register = {
        "system": lambda: client.register_system_shared_memory("mine", "/mine", 64),
        "cuda": lambda: client.register_cuda_shared_memory("mine", b"handle", 0, 64),
    }[memory]
    for call in [status, unregister, register]:
        with pytest.raises(InferenceServerException) as error:
            call()
        assert error.value.status() in ("404", "501")
    there = image()
    there.set_shared_memory("mine", 256)
    with pytest.raises(InferenceServerException, match="shared") as error:
        client.infer("digits", [there])
    assert error.value.status() in ("400", "501")
    asked = triton.InferRequestedOutput(scores(client))
    asked.set_shared_memory("mine", 40)
    with pytest.raises(InferenceServerException, match="shared"):
        client.infer("digits", [image()], outputs=[asked])
    asked.unset_shared_memory()
    client.infer("digits", [image()], outputs=[asked])


def test_aio(server):
    async def run():
        async with triton_aio.InferenceServerClient(server["rest"]) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("digits")
            assert not await client.is_model_ready("nobody")
            assert (await client.get_server_metadata())["name"] == "onward"
            assert (await client.get_model_metadata("digits"))["name"] == "digits"
            assert (await client.get_model_config("digits"))["name"] == "digits"
            assert (await client.get_inference_statistics("digits"))["model_stats"]
            await client.unload_model("wine")
            await client.load_model("wine")
            index = await client.get_model_repository_index()
            assert {"digits", "wine", "language"} <= {model["name"] for model in index}
            with pytest.raises(InferenceServerException, match="Request for unknown model"):
                await client.infer("nobody", [image()])
            compressed = await client.infer(
                "digits", [image()], request_compression_algorithm="gzip",
                response_compression_algorithm="deflate",
            )
            results = await asyncio.gather(*(
                client.infer("digits", [image(binary=number % 2 == 0)], request_id=str(number))
                for number in range(32)
            ))
            for result in results:
                same(arrays(result), arrays(compressed))
            return [result.get_response()["id"] for result in results]

    assert asyncio.run(run()) == [str(number) for number in range(32)]
