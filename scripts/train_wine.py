#!/usr/bin/env python3
"""Trains the sample model `wine`, which has several inputs and outputs, and writes it, its samples and its
golden samples into models/wine.

A wine is described by thirteen measurements. The model tells its cultivar, and how far the wine is from
the mean of each; numbers that callers give wines come back with the answers.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

MODEL = Path(__file__).resolve().parent.parent / "models" / "wine"
SEED = 0
CULTIVARS = [b"barolo", b"grignolino", b"barbera"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Wine:
    """The trained parts: a scaling, a linear classifier, and the mean of each cultivar."""

    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    centers: Floats

    def answers(self, measurements: Floats) -> dict[str, NDArray]:
        """What the model has to answer, computed without ONNX Runtime."""
        scaled = (measurements - self.mean) / self.scale
        scores = scaled @ self.weights.T + self.bias
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        distances = ((scaled[:, None, :] - self.centers[None]) ** 2).sum(axis=2) ** 0.5
        return {
            "class": scores.argmax(axis=1),
            "probabilities": (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32),
            "distances": distances.astype(np.float32),
        }


def train(measurements: Floats, classes: NDArray[np.int64]) -> Wine:
    mean, scale = measurements.mean(axis=0), measurements.std(axis=0)
    scaled = (measurements - mean) / scale
    with threadpool_limits(limits=1):  # or the number of cores decides the order of additions
        model = LogisticRegression(max_iter=1000, random_state=SEED).fit(scaled, classes)
    centers = np.stack([scaled[classes == kind].mean(axis=0) for kind in range(3)])
    parts = (mean, scale, model.coef_, model.intercept_, centers)
    return Wine(*(np.ascontiguousarray(part, np.float32) for part in parts))


def to_onnx(wine: Wine) -> onnx.ModelProto:
    """(measurements - mean) / scale -> scores -> class, cultivar, probabilities; -> distances; ids as they are."""
    arrays = {
        "mean": wine.mean,
        "scale": wine.scale,
        "weights": wine.weights,
        "bias": wine.bias,
        "centers": wine.centers[None],
        "row": np.array([1], np.int64),
        "names": np.array([name.decode() for name in CULTIVARS], object),
    }
    nodes = [
        helper.make_node("Sub", ["measurements", "mean"], ["centered"]),
        helper.make_node("Div", ["centered", "scale"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "weights", "bias"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "class"], ["cultivar"]),
        helper.make_node("Unsqueeze", ["scaled", "row"], ["rows"]),
        helper.make_node("Sub", ["rows", "centers"], ["apart"]),
        helper.make_node("ReduceL2", ["apart"], ["distances"], axes=[2], keepdims=0),
        helper.make_node("Identity", ["ids"], ["ids_out"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "wine",
        [info("measurements", TensorProto.FLOAT, ["batch", 13]), info("ids", TensorProto.INT64, ["batch"])],
        [
            info("cultivar", TensorProto.STRING, ["batch"]),
            info("class", TensorProto.INT64, ["batch"]),
            info("probabilities", TensorProto.FLOAT, ["batch", 3]),
            info("distances", TensorProto.FLOAT, ["batch", 3]),
            info("ids_out", TensorProto.INT64, ["batch"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
        producer_name="onward",
        doc_string="Cultivars of wine by thirteen measurements.",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def request(measurements: Floats, ids: list[int]) -> dict:
    """A request body of the Open Inference Protocol."""
    rows = [[round(float(value), 6) for value in row] for row in measurements]
    return {
        "inputs": [
            {"name": "measurements", "shape": [len(rows), 13], "datatype": "FP32", "data": rows},
            {"name": "ids", "shape": [len(ids)], "datatype": "INT64", "data": ids},
        ]
    }


def write(wine: Wine, measurements: Floats) -> None:
    for folder in ("1", "samples", "golden"):
        (MODEL / folder).mkdir(parents=True, exist_ok=True)
    model = to_onnx(wine).SerializeToString(deterministic=True)
    (MODEL / "1" / "model.onnx").write_bytes(model)
    sample = request(measurements, [101, 102])
    (MODEL / "samples" / "two.json").write_text(json.dumps(sample, indent=1) + "\n", encoding="utf-8")
    answers = wine.answers(measurements)
    expected = {
        "cultivar": ("BYTES", [CULTIVARS[kind].decode() for kind in answers["class"]]),
        "class": ("INT64", answers["class"].tolist()),
        "probabilities": ("FP32", answers["probabilities"].tolist()),
        "distances": ("FP32", answers["distances"].tolist()),
        "ids_out": ("INT64", [101, 102]),
    }
    shapes = {"probabilities": [2, 3], "distances": [2, 3]}
    sample["outputs"] = [
        {"name": name, "shape": shapes.get(name, [2]), "datatype": datatype, "data": data}
        for name, (datatype, data) in expected.items()
    ]
    (MODEL / "golden" / "two.json").write_text(json.dumps(sample, indent=1) + "\n", encoding="utf-8")


def verify(wine: Wine, measurements: Floats, classes: NDArray[np.int64]) -> None:
    """Fails unless the written model answers as the trained one; prints what the README tells."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
    import onnxruntime

    path = MODEL / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ids = np.arange(len(measurements), dtype=np.int64)
    names = ["class", "probabilities", "distances", "ids_out", "cultivar"]
    answers = dict(zip(names, session.run(names, {"measurements": measurements, "ids": ids}), strict=True))
    for name, expected in wine.answers(measurements).items():
        np.testing.assert_allclose(answers[name], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(answers["ids_out"], ids)
    assert [name.encode() for name in answers["cultivar"]] == [CULTIVARS[k] for k in answers["class"]]
    share = 100 * (answers["class"] == classes).mean()
    print(f"{share:.1f} % of {len(classes)} wines, {path.stat().st_size} bytes")


def main() -> None:
    data = load_wine()
    parts = train_test_split(
        data.data.astype(np.float32), data.target, test_size=1 / 3, random_state=SEED, stratify=data.target
    )
    wine = train(parts[0], parts[2])
    write(wine, parts[1][:2].round(4))
    verify(wine, parts[1], parts[3])


if __name__ == "__main__":
    main()
