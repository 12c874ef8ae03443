"""The operator tests that ONNX has of its own, and what ONNX Runtime says of them without a server."""

import ctypes
import functools
import pathlib

import ml_dtypes
import numpy
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

# What has a datatype in the protocol.
DATATYPES = {
    "BOOL": "BOOL", "STRING": "BYTES", "FLOAT16": "FP16", "BFLOAT16": "BF16", "FLOAT": "FP32",
    "DOUBLE": "FP64", **{
        f"{sign}INT{size}": f"{sign}INT{size}" for sign in ("", "U") for size in (8, 16, 32, 64)
    },
}

# Why a model cannot be asked for over the protocol, by what of its inputs or outputs has no place there.
KINDS = {
    "sequence_type": "a sequence of tensors: the protocol has tensors",
    "map_type": "a map: the protocol has tensors",
    "optional_type": "a value that may be absent: a tensor of the protocol always has data",
    "sparse_tensor_type": "a sparse tensor: the protocol has dense ones",
    "opaque_type": "an opaque value: the protocol has tensors",
    "FLOAT8": "floats of 8 bits: the protocol has no datatype for them",
    "FLOAT4": "floats of 4 bits: the protocol has no datatype for them",
    "INT4": "integers of 4 bits: the protocol has no datatype for them",
    "INT2": "integers of 2 bits: the protocol has no datatype for them",
    "COMPLEX": "complex numbers: the protocol has no datatype for them",
    "text": "bytes that are no UTF-8: JSON is text (only in JSON)",
}


class Case:
    """A model with what it is asked and has to answer, once or several times."""

    def __init__(self, case):
        self.name = case.name
        self.tolerance = {"rtol": case.rtol, "atol": case.atol}
        self.folder = pathlib.Path(case.model_dir)
        self.graph = onnx.load(self.folder / "model.onnx").graph
        defaulted = {tensor.name for tensor in self.graph.initializer}
        # In the order in which the test's inputs are.
        self.inputs = [value for value in self.graph.input if value.name not in defaulted]

    @functools.cached_property
    def inexpressible(self):
        """The kinds of values that the protocol has not."""
        kinds = {kind(value) for value in [*self.graph.input, *self.graph.output]}
        return sorted(kinds - {None})

    def data(self):
        """Pairs of inputs by name and outputs in the graph's order."""
        for folder in sorted(self.folder.glob("test_data_set_*")):
            names = [value.name for value in self.inputs]
            given = tensors(folder, "input")
            yield dict(zip(names, given)), tensors(folder, "output")

    @functools.cached_property
    def passes(self):
        """Whether ONNX Runtime itself, asked in this process, answers as it has to."""
        return not self.inexpressible and runtime_passes(self)

    def check(self, expected, answered):
        """Fails unless the outputs are what they have to be, as ONNX itself would judge."""
        Runner.assert_similar_outputs(expected, answered, **self.tolerance)


def kind(value):
    which = value.type.WhichOneof("value")
    if which != "tensor_type":
        return which
    element = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if element in DATATYPES:
        return None
    return next(known for known in KINDS if element.removeprefix("U").startswith(known))


def tensors(folder, direction):
    count = len(list(folder.glob(f"{direction}_*.pb")))
    files = [folder / f"{direction}_{number}.pb" for number in range(count)]
    return [numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files]


def cases():
    found = sorted(load_model_tests(kind="node"), key=lambda case: case.name)
    return [Case(case) for case in found]


def runtime_passes(case):
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            case.folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        for inputs, expected in case.data():
            case.check(expected, run(session, inputs))
    # Whatever it is, the runtime has not passed; its errors have no base of their own.
    except Exception:
        return False
    return True


def run(session, inputs):
    kinds = {value.type for value in [*session.get_inputs(), *session.get_outputs()]}
    if "tensor(bfloat16)" not in kinds:
        return session.run(None, inputs)
    # Numpy has no such number, so that the runtime takes and gives it in its own values only.
    values = {name: to_runtime(array) for name, array in inputs.items()}
    return [from_runtime(value) for value in session.run_with_ort_values(None, values)]


def to_runtime(array):
    if array.dtype != ml_dtypes.bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = numpy.ascontiguousarray(array).view(numpy.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        bits, onnx.TensorProto.BFLOAT16
    )


def from_runtime(value):
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    shape = value.shape()
    size = 2 * int(numpy.prod(shape))
    raw = ctypes.string_at(value.data_ptr(), size)
    return numpy.frombuffer(raw, dtype=ml_dtypes.bfloat16).reshape(shape)
