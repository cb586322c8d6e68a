"""Makes the ONNX files of this folder, which other programs write than those that the tests have at hand.

    uv run --no-project --with skl2onnx,onnxscript,torch python tests/foreign_onnx/make.py

forest.onnx is scikit-learn's, by skl2onnx: a random forest with two outputs, in operators of another domain.
dynamo.onnx is from torch's newer exporter: a small network in opset 18, whose weights are in an order of its own.
"""

from pathlib import Path

import numpy as np
import torch
from skl2onnx import to_onnx  # type: ignore[import-not-found]
from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-not-found]

HERE = Path(__file__).parent


def forest() -> None:
    """Three trees on four features, answering with a class and the probability of each."""
    random = np.random.default_rng(0)
    features = random.standard_normal((60, 4)).astype(np.float32)
    classes = (features[:, 0] > 0).astype(np.int64)
    trained = RandomForestClassifier(n_estimators=3, max_depth=3, random_state=0).fit(features, classes)
    model = to_onnx(trained, features[:1], target_opset={"": 15, "ai.onnx.ml": 2}, options={"zipmap": False})
    (HERE / "forest.onnx").write_bytes(model.SerializeToString())


def dynamo() -> None:
    """A convolution and a linear layer on images of 8 x 8 pixels, with an open batch."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.GELU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        network.eval(),
        (torch.zeros(2, 3, 8, 8),),
        dynamo=True,
        dynamic_shapes=({0: batch},),
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()
    program.save(HERE / "dynamo.onnx")


if __name__ == "__main__":
    forest()
    dynamo()
