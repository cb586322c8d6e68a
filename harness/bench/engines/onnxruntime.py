"""ONNX Runtime on the CPU: the reference study's 1.16.0, and the current one."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from harness.bench.engines import Array, Content, Engine, Infer

TITLE = "ONNX Runtime"
VARIANTS = {
    "1.16.0": {"version": "1.16.0", "environment": "bench-1.16.0"},
    "current": {"version": "1.32.0", "environment": "bench-current"},
}
# MLAS, its kernels, is linked into Python's extension module.
LIBRARIES = ("onnxruntime/capi/onnxruntime_pybind11_state.*.so",)

PROVIDER = "CPUExecutionProvider"
NCHWC = "com.microsoft.nchwc"
CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv")


class OnnxRuntime(Engine):
    """One session per model, the same options for latency and accuracy."""

    def version(self) -> str:
        return str(onnxruntime.__version__)

    def options(self, threads: int) -> dict[str, Any]:
        """See the base class. Names with a dot are the session's configuration entries.

        An explicit number of threads also keeps the runtime from pinning threads to cores outside a cpuset. Denormals
        are flushed because they slow identical graphs five- to sixteenfold. Spinning is the runtime's own default.
        """
        return {
            "provider": PROVIDER,
            "intra_op_num_threads": threads,
            "inter_op_num_threads": 1,
            "execution_mode": "ORT_SEQUENTIAL",
            "graph_optimization_level": "ORT_ENABLE_ALL",
            "enable_cpu_mem_arena": True,
            "enable_mem_pattern": True,
            "session.intra_op.allow_spinning": "1",
            "session.inter_op.allow_spinning": "0",
            "session.set_denormal_as_zero": "1",
        }

    def open(self, model: Content, threads: int) -> Infer:
        session = onnxruntime.InferenceSession(model, self.session_options(threads), providers=[PROVIDER])

        def infer(inputs: Mapping[str, Array]) -> list[Array]:
            return session.run(None, inputs)

        return infer

    def facts(self, model: Content, threads: int) -> dict[str, Any]:
        """How many convolutions there are, and how many of them run in NCHWc, the runtime's fast layout.

        Where channel counts do not fit the CPU's vector width the runtime falls back on plain NCHW, which can cost more
        than the pruned channels save. The optimised graph shows which layout each convolution got.
        """
        domains = [node.domain for node in self._optimised(model, threads).node if node.op_type in CONVOLUTIONS]
        return {"convolutions": len(domains), "nchwc_convolutions": domains.count(NCHWC)}

    def kernels(self, threads: int) -> dict[str, Any]:
        """See the base class."""
        return {"nchwc_block": self._nchwc_block(threads), "exact_byte_sums": self._adds_bytes_exactly(threads)}

    def _nchwc_block(self, threads: int) -> int | None:
        """Channels per block of NCHWc: 24 filters are padded to 32 where blocks are of 16, and stay 24 where of 8."""
        from onnx import TensorProto, helper  # only here: timing never needs it

        filters = helper.make_tensor("filters", TensorProto.FLOAT, [24, 16, 3, 3], [1.0] * (24 * 16 * 9))
        graph = helper.make_graph(
            [helper.make_node("Conv", ["input", "filters"], ["output"])],
            "probe",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 16, 8, 8])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 24, 6, 6])],
            [filters],
        )
        optimised = self._optimised(_model(graph), threads)
        if not any(node.domain == NCHWC for node in optimised.node):
            return None
        (padded,) = (tensor.dims[0] for tensor in optimised.initializer if len(tensor.dims) == 4)
        return 16 if padded == 32 else 8

    def _adds_bytes_exactly(self, threads: int) -> bool:
        """Whether 255 x 127 summed 64 times is what it is: without VNNI, sums of two products saturate at 16 bits."""
        import numpy as np
        from onnx import TensorProto, helper

        length = 64
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["left", "right"], ["output"])],
            "probe",
            [helper.make_tensor_value_info("left", TensorProto.UINT8, [1, length])],
            [helper.make_tensor_value_info("output", TensorProto.INT32, [1, length])],
            [helper.make_tensor("right", TensorProto.INT8, [length, length], [127] * length**2)],
        )
        session = onnxruntime.InferenceSession(_model(graph), self.session_options(threads), providers=[PROVIDER])
        sums = session.run(None, {"left": np.full((1, length), 255, np.uint8)})[0]
        return bool((sums == 255 * 127 * length).all())

    def _optimised(self, model: Content, threads: int) -> Any:
        """The graph as the runtime has optimised it, which it can write as an ONNX file."""
        import onnx

        options = self.session_options(threads)
        with tempfile.TemporaryDirectory(prefix="harness-optimised-") as folder:
            path = Path(folder) / "optimised.onnx"
            options.optimized_model_filepath = str(path)
            # The runtime warns that the file suits this machine only, which is the point of it.
            options.log_severity_level = 3
            onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
            # Weights beside a model stay there.
            return onnx.load(path, load_external_data=False).graph

    def session_options(self, threads: int) -> onnxruntime.SessionOptions:
        """The options as the runtime takes them."""
        options = onnxruntime.SessionOptions()
        for name, value in self.options(threads).items():
            if name.startswith("session."):
                options.add_session_config_entry(name, value)
            elif name == "execution_mode":
                options.execution_mode = getattr(onnxruntime.ExecutionMode, value)
            elif name == "graph_optimization_level":
                options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, value)
            elif name != "provider":
                setattr(options, name, value)
        return options


def _model(graph: Any) -> bytes:
    """A graph as a model file that every version of the runtime reads."""
    from onnx import helper

    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    return bytes(model.SerializeToString())


ENGINE = OnnxRuntime()
