"""ONNX's own operator tests, asked in each of the ways in which the server can be asked.

Whatever ONNX Runtime answers rightly without a server has to be answered rightly by one. What the protocol
has no words for is told by `corpus.KINDS`, and is refused when it is to be loaded.
"""

import collections
import contextlib
import json
import shutil

import ml_dtypes
import numpy
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
import urllib3
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

import corpus
from conftest import PROJECT, serving

# The server asks a model before it serves, and says so where the model takes nothing that could be made up.
WARM_UP = "set 'warm_up: off' in model.yaml if no generated input fits the model"


class NotExpressible(Exception):
    """There is no way to say this over the wire."""


@pytest.fixture(scope="module")
def cases():
    return corpus.cases()


@pytest.fixture(scope="module")
def expected(cases):
    """The cases that have to pass."""
    version = (PROJECT / ".onnxruntime/VERSION").read_text().split()[1]
    assert onnxruntime.__version__ == version, "the judge is not the pinned library"
    return [case for case in cases if case.passes]


@pytest.fixture(scope="module")
def addresses(cases, tmp_path_factory):
    repository = tmp_path_factory.mktemp("corpus")
    for case in cases:
        version = repository / case.name / "1"
        version.mkdir(parents=True)
        shutil.copy(case.folder / "model.onnx", version)
    settings = ["--models.mode", "explicit", "--inference.instances", "1"]
    with serving(*settings, repository=repository) as addresses:
        yield {**addresses, "repository": repository}


class Json:
    """REST, with tensors as JSON; without Triton's client, which knows no FP16 and no BF16 there."""

    def __init__(self, addresses):
        self.address = addresses["rest"]
        self.pool = urllib3.PoolManager()

    def infer(self, model, inputs):
        body = {"inputs": [
            {"name": name, "shape": array.shape, "datatype": datatype(array), "data": texts(array)}
            for name, array in inputs.items()
        ]}
        answer = self.pool.request(
            "POST", f"http://{self.address}/v2/models/{model}/infer",
            body=json.dumps(body, allow_nan=False),
        )
        assert answer.status == 200, answer.data
        # Neither may the server write what is no JSON.
        told = json.loads(answer.data, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        return [read(output) for output in told["outputs"]]


def datatype(array):
    if array.dtype == ml_dtypes.bfloat16:
        return "BF16"
    return tritonclient.utils.np_to_triton_dtype(array.dtype)


def texts(array):
    """The elements as JSON has them; what is no finite number there is a word."""
    if array.dtype.kind == "O":
        try:
            return [text if isinstance(text, str) else text.decode() for text in array.flat]
        except UnicodeDecodeError as error:
            raise NotExpressible("text") from error
    if array.dtype.kind not in "biu":
        words = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
        return [words.get(str(number), number) for number in array.astype(numpy.float64).flat]
    return array.flatten().tolist()


def read(output):
    dtype = ml_dtypes.bfloat16 if output["datatype"] == "BF16" else None
    dtype = dtype or numpy.dtype(triton_to_np_dtype(output["datatype"]))
    data = output["data"]
    if output["datatype"] not in ("BYTES", "BOOL") and any(isinstance(one, str) for one in data):
        data = [float(one) for one in data]
    return numpy.array(data, dtype=dtype).reshape(output["shape"])


class Triton:
    """Triton's client, over REST with tensors as bytes, or over gRPC."""

    def __init__(self, module, address):
        self.module = module
        self.client = module.InferenceServerClient(address)

    def infer(self, model, inputs):
        tensors = []
        for name, array in inputs.items():
            tensor = self.module.InferInput(name, list(array.shape), datatype(array))
            tensors.append(tensor.set_data_from_numpy(array))
        result = self.client.infer(model, tensors)
        response = result.get_response()
        outputs = response["outputs"] if isinstance(response, dict) else response.outputs
        names = [one["name"] if isinstance(one, dict) else one.name for one in outputs]
        return [decoded(result.as_numpy(name)) for name in names]


def decoded(array):
    """Strings as ONNX's tests have them."""
    if array.dtype.kind != "O":
        return array
    elements = [text.decode() if isinstance(text, bytes) else text for text in array.flat]
    return numpy.array(elements, dtype=object).reshape(array.shape)


@pytest.fixture(scope="module")
def load(addresses):
    """Loads a model for as long as the block runs, and tells whether it had to be without a warm-up."""
    client = tritonclient.grpc.InferenceServerClient(addresses["grpc"])

    @contextlib.contextmanager
    def loaded(name):
        try:
            client.load_model(name)
            is_cold = False
        except InferenceServerException as error:
            if WARM_UP not in error.message():
                raise
            (addresses["repository"] / name / "model.yaml").write_text("warm_up: off\n")
            client.load_model(name)
            is_cold = True
        yield is_cold
        client.unload_model(name)

    return loaded


@pytest.fixture(scope="module")
def ways(addresses):
    return {
        "HTTP, JSON": Json(addresses),
        "HTTP, binary": Triton(tritonclient.http, addresses["rest"]),
        "gRPC": Triton(tritonclient.grpc, addresses["grpc"]),
    }


def test_every_operator(cases, expected, load, ways, summary):
    outcomes = {way: collections.Counter() for way in ways}
    problems, cold = [], 0
    for case in expected:
        with load(case.name) as is_cold:
            cold += is_cold
            for name, way in ways.items():
                outcome, problem = ask(way, case)
                outcomes[name][outcome] += 1
                problems += [f"{case.name}, {name}: {problem}"] if problem else []
    summary += lines(cases, expected, outcomes)
    summary.append(f"node corpus: {cold} were served without a warm-up, as no made-up input fits them")
    assert not problems, "\n".join(problems)


def lines(cases, expected, outcomes):
    """What is told at the end."""
    unsaid = [case for case in cases if case.inexpressible]
    by_type = collections.Counter(kind for case in unsaid for kind in case.inexpressible)
    wrong = len(cases) - len(unsaid) - len(expected)
    for kind, number in by_type.most_common():
        yield f"node corpus: {number} have {corpus.KINDS[kind]}"
    yield f"node corpus: {wrong} are not read by ONNX Runtime itself, or not answered as they should be"
    for way, counts in outcomes.items():
        more = sum(counts.values()) - counts["passed"] - counts["failed"]
        yield (
            f"node corpus: {counts['passed']} passed, {len(unsaid) + more} not expressible, "
            f"{counts['failed']} failed ({way})"
        )


def test_what_cannot_be_expressed_is_refused(cases, addresses, load):
    """With a client's error that names what it is, and without harm to anything."""
    for case in cases:
        if not case.inexpressible:
            continue
        with pytest.raises(InferenceServerException) as error, load(case.name):
            pass
        assert error.value.status() == "StatusCode.INVALID_ARGUMENT", (case.name, error.value)
    assert is_well(addresses)


def test_what_the_runtime_does_not_do_harms_nobody(cases, addresses, load, ways):
    """A model that it does not read is refused as a client's mistake; another is served as far as it goes."""
    for case in cases:
        if case.inexpressible or case.passes:
            continue
        try:
            with load(case.name):
                ask(ways["gRPC"], case)
        except InferenceServerException as error:
            assert error.status() == "StatusCode.INVALID_ARGUMENT", (case.name, error)
    assert is_well(addresses)


def is_well(addresses):
    client = tritonclient.grpc.InferenceServerClient(addresses["grpc"])
    return client.is_server_live() and client.is_server_ready()


def ask(way, case):
    try:
        for inputs, outputs in case.data():
            case.check(outputs, way.infer(case.name, inputs))
    except NotExpressible as kind:
        return str(kind), None
    # A case that fails is a line in the list, whatever has gone wrong.
    except (AssertionError, InferenceServerException, ValueError, TypeError) as error:
        return "failed", " ".join(str(error).split())[:300]
    return "passed", None
