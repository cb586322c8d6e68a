"""ONNX Runtime on the CPU: the reference study's 1.16.0, and the current one."""

import tempfile
from pathlib import Path
from typing import Any

import onnxruntime

from harness.bench.engines import INPUT, OUTPUT, Array, Engine, Infer

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

    def open(self, model: bytes, threads: int) -> Infer:
        session = onnxruntime.InferenceSession(model, self.session_options(threads), providers=[PROVIDER])

        def infer(images: Array) -> Array:
            return session.run([OUTPUT], {INPUT: images})[0]

        return infer

    def facts(self, model: bytes, threads: int) -> dict[str, Any]:
        """How many convolutions there are, and how many of them run in NCHWc, the runtime's fast layout.

        Where channel counts do not fit the CPU's vector width the runtime falls back on plain NCHW, which can cost more
        than the pruned channels save. The graph that the runtime has optimised, which it can write as an ONNX file,
        shows which layout each convolution got.
        """
        import onnx  # only here: a process that measures latency never needs it

        options = self.session_options(threads)
        with tempfile.TemporaryDirectory(prefix="harness-optimised-") as folder:
            path = Path(folder) / "optimised.onnx"
            options.optimized_model_filepath = str(path)
            # The runtime warns that the file suits this machine only, which is the point of it.
            options.log_severity_level = 3
            onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
            nodes = onnx.load(path).graph.node
        domains = [node.domain for node in nodes if node.op_type in CONVOLUTIONS]
        return {"convolutions": len(domains), "nchwc_convolutions": domains.count(NCHWC)}

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


ENGINE = OnnxRuntime()
