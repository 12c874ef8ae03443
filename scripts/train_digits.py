#!/usr/bin/env python3
"""Trains the sample model `digits` and writes its two versions, its samples and its golden samples into
models/digits.

Version 1 compares an image with the mean image of each digit; version 2 is a network with one
hidden layer. Both have the same signature, so either can replace the other. The same packages
(train.requirements.txt) on the same kind of processor give the same bytes.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

MODEL = Path(__file__).resolve().parent.parent / "models" / "digits"
SEED = 0
BRIGHTEST = 16.0
DIGITS = range(10)
BATCH = (4, 7, 1, 9)
HARD_SAMPLES = 3
GOLDEN_IMAGES = 16

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """Images of 8 x 8 pixels from 0 to 16, and the digits they show."""

    images: Images
    labels: Labels


@dataclass(frozen=True)
class Layer:
    """A dense layer: `weights @ input + bias`."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Version:
    """A trained version: dense layers with ReLU between them, softmax after the last."""

    number: int
    description: str
    layers: list[Layer]

    @property
    def path(self) -> Path:
        return MODEL / str(self.number) / "model.onnx"

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """What the model has to answer, computed without ONNX Runtime."""
        values = images.reshape(len(images), -1) / np.float32(BRIGHTEST)
        for index, layer in enumerate(self.layers):
            values = np.maximum(values, 0) if index > 0 else values
            values = values @ layer.weights.T + layer.bias
        exponentials = np.exp(values - values.max(axis=1, keepdims=True))
        shares: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return shares


def split() -> tuple[Data, Data]:
    """Two thirds of the images for training, the rest for testing."""
    digits = load_digits()
    parts = train_test_split(
        digits.images.astype(np.float32),
        digits.target.astype(np.int64),
        test_size=1 / 3,
        random_state=SEED,
        stratify=digits.target,
    )
    return Data(parts[0], parts[2]), Data(parts[1], parts[3])


def dense_layer(weights: NDArray[np.floating], bias: NDArray[np.floating]) -> Layer:
    return Layer(np.ascontiguousarray(weights, np.float32), np.ascontiguousarray(bias, np.float32))


def train_centroids(train: Data) -> Version:
    """The nearest mean c is that of the greatest 2cx - |c|^2: |x|^2 is the same for all."""
    inputs = train.images.reshape(len(train.images), -1).astype(np.float64) / BRIGHTEST
    centroids = np.stack([inputs[train.labels == digit].mean(axis=0) for digit in DIGITS])
    closeness = dense_layer(2 * centroids, -(centroids**2).sum(axis=1))
    return Version(1, "nearest mean image", [closeness])


def train_network(train: Data) -> Version:
    inputs = train.images.reshape(len(train.images), -1).astype(np.float64) / BRIGHTEST
    network = MLPClassifier(hidden_layer_sizes=(64,), alpha=0.01, max_iter=600, random_state=SEED)
    with threadpool_limits(limits=1):  # or the number of cores decides the order of additions
        network.fit(inputs, train.labels)
    layers = [dense_layer(w.T, b) for w, b in zip(network.coefs_, network.intercepts_, strict=True)]
    return Version(2, "network with one hidden layer of 64 units", layers)


def accuracy(probabilities: NDArray[np.float32], labels: Labels) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def to_onnx(version: Version, test: Data) -> onnx.ModelProto:
    """image -> flatten, scale, dense layers -> probabilities -> label."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["pixels"], axis=1),
        helper.make_node("Div", ["pixels", "brightest"], ["scaled"]),
    ]
    weights = [numpy_helper.from_array(np.array(BRIGHTEST, np.float32), "brightest")]
    value = "scaled"
    for number, dense in enumerate(version.layers, start=1):
        if number > 1:
            nodes.append(helper.make_node("Relu", [value], [f"active{number}"]))
            value = f"active{number}"
        names = [f"weights{number}", f"bias{number}"]
        weights.append(numpy_helper.from_array(dense.weights, names[0]))
        weights.append(numpy_helper.from_array(dense.bias, names[1]))
        nodes.append(helper.make_node("Gemm", [value, *names], [f"dense{number}"], transB=1))
        value = f"dense{number}"
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 8])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
        ],
        weights,
    )
    model = helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
        producer_name="onward",
        model_version=version.number,
        doc_string=f"Handwritten digits, 8 x 8 pixels from 0 to 16: {version.description}.",
    )
    measured = accuracy(version.probabilities(test.images), test.labels)
    metadata = {
        "kind": version.description,
        "test_accuracy": f"{measured:.4f}",
        "test_images": str(len(test.labels)),
        "data": "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, CC BY 4.0",
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def request(images: Images) -> str:
    """A request body of the Open Inference Protocol, one line for each row of pixels."""

    def nested(items: Iterable[str], indent: str) -> str:
        inner = f"\n{indent}  "
        return f"[{inner}{f',{inner}'.join(items)}\n{indent}]"

    rows = [[", ".join(f"{pixel:2.0f}" for pixel in row) for row in image] for image in images]
    data = nested((nested((f"[{row}]" for row in image), " " * 8) for image in rows), " " * 6)
    return f"""{{
  "inputs": [
    {{
      "name": "image",
      "shape": {list(images.shape)},
      "datatype": "FP32",
      "data": {data}
    }}
  ]
}}
"""


def choose_samples(first: Version, second: Version, test: Data) -> dict[str, list[int]]:
    """File names, and which test images go into them."""
    answers = [version.probabilities(test.images) for version in (first, second)]
    right = [answer.argmax(axis=1) == test.labels for answer in answers]
    easy = np.flatnonzero(right[0] & right[1])
    easy = easy[np.argsort(-answers[0][easy].max(axis=1), kind="stable")]
    hard = np.flatnonzero(~right[0] & right[1])
    hard = hard[np.argsort(-answers[1][hard].max(axis=1), kind="stable")]
    by_digit = {digit: [int(i) for i in easy if test.labels[i] == digit] for digit in DIGITS}
    hardest: dict[int, int] = {}
    for index in hard:
        hardest.setdefault(int(test.labels[index]), int(index))
    samples = {f"digit-{digit}": [by_digit[digit][0]] for digit in DIGITS}
    samples |= {f"hard-{d}": [i] for d, i in sorted(list(hardest.items())[:HARD_SAMPLES])}
    samples["batch"] = [by_digit[digit][1] for digit in BATCH]
    return samples


def write(versions: Iterable[Version], samples: dict[str, list[int]], test: Data) -> None:
    for version in versions:
        version.path.parent.mkdir(parents=True, exist_ok=True)
        model = to_onnx(version, test)
        version.path.write_bytes(model.SerializeToString(deterministic=True))
    folder = MODEL / "samples"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.json"):
        stale.unlink()
    for name, indices in samples.items():
        (folder / f"{name}.json").write_text(request(test.images[indices]), encoding="utf-8")


def write_golden(versions: Iterable[Version], batch: Data, test: Data) -> None:
    """What each version has to answer: the batch, which both know, and some held-out images."""
    folder = MODEL / "golden"
    folder.mkdir(exist_ok=True)
    sample = json.loads(request(batch.images))
    label = {"name": "label", "shape": [len(batch.labels)], "datatype": "INT64"}
    sample["outputs"] = [label | {"data": batch.labels.tolist()}]
    (folder / "batch.json").write_text(json.dumps(sample) + "\n", encoding="utf-8")
    images = test.images[:GOLDEN_IMAGES]
    for version in versions:
        probabilities = version.probabilities(images)
        arrays = {"input:image": images, "output:probabilities": probabilities}
        arrays["output:label"] = probabilities.argmax(axis=1)
        (folder / str(version.number)).mkdir(exist_ok=True)
        np.savez_compressed(folder / str(version.number) / "held-out.npz", **arrays)


def run(version: Version, images: Images) -> tuple[Labels, NDArray[np.float32]]:
    """What the written model answers in ONNX Runtime."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
    import onnxruntime

    session = onnxruntime.InferenceSession(version.path, providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(["label", "probabilities"], {"image": images})
    return labels, probabilities


def verify(version: Version, test: Data) -> None:
    """Fails unless the written model answers as the trained one; prints what the README tells."""
    labels, probabilities = run(version, test.images)
    expected = version.probabilities(test.images)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(labels, expected.argmax(axis=1))
    share = f"{100 * accuracy(probabilities, test.labels):.1f} % of {len(labels)} images"
    print(f"version {version.number}: {version.description}, {share}, ", end="")
    print(f"{version.path.stat().st_size} bytes")


def verify_samples(
    first: Version, second: Version, samples: dict[str, list[int]], test: Data
) -> None:
    """Fails unless the sample files get the answers that their names promise; prints a table."""
    print("| Sample | Digit | Version 1 | Version 2 |\n| --- | --- | --- | --- |")
    for name, indices in samples.items():
        body = json.loads((MODEL / "samples" / f"{name}.json").read_text(encoding="utf-8"))
        tensor = body["inputs"][0]
        images = np.array(tensor["data"], np.float32)
        assert list(images.shape) == tensor["shape"], name
        truth = test.labels[indices].tolist()
        answers = [run(version, images)[0].tolist() for version in (first, second)]
        assert answers[1] == truth and (answers[0] == truth) != name.startswith("hard"), name
        cells = [", ".join(map(str, labels)) for labels in (truth, *answers)]
        print(f"| `{name}.json` | {' | '.join(cells)} |")


def main() -> None:
    train, test = split()
    first, second = train_centroids(train), train_network(train)
    samples = choose_samples(first, second, test)
    write((first, second), samples, test)
    batch = samples["batch"]
    write_golden((first, second), Data(test.images[batch], test.labels[batch]), test)
    for version in (first, second):
        verify(version, test)
    verify_samples(first, second, samples, test)


if __name__ == "__main__":
    main()
