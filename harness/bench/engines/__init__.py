"""What an engine must answer, and how the bench opens a model file with one.

An engine is one file in this folder, or `package.module:NAME` anywhere on Python's path. matrix.toml names it in one of
its variants, like onnxruntime-1.16.0. Constants with literal values are read without importing the file:

    TITLE      its name in tables
    VARIANTS   variant -> {"version": ..., "environment": ...}: the version that the engine has to report, and the
               folder in .venvs whose Python has it, along with the packages of the `bench` extra in pyproject.toml
    LIBRARIES  the shared libraries in which it chooses its kernels, as patterns below the environment's site-packages.
               Where the kernel cannot let CPUID fault, only an engine that names them can be shown another CPU's
               instruction set (harness.host.isa)

`ENGINE = MyEngine()` at the end of the file is what the bench uses. The file is imported in the variant's environment
alone, so it may import what only that environment has. Nothing else in the bench imports an engine.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.bench.job import OnnxFile
from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.specs import engine_plugin

Array = npt.NDArray[Any]
# a model's inputs by name -> its outputs in the file's order
Infer = Callable[[Mapping[str, Array]], list[Array]]
# What an engine opens: a file's bytes, or the path of one whose external data lies beside it.
Content = bytes | Path


class Engine(ABC):
    """What an engine must answer. The process that asks is pinned to as many CPUs as there are threads."""

    @abstractmethod
    def version(self) -> str:
        """The version of the installed engine, like 1.16.0."""

    @abstractmethod
    def options(self, threads: int) -> dict[str, Any]:
        """Every option of the engine that can change a latency, as plain JSON values.

        They are on record with each measurement, and a measurement under other options is out of date. So `open` must
        set them all rather than leave any to the engine's defaults.
        """

    @abstractmethod
    def open(self, model: Content, threads: int) -> Infer:
        """Load an ONNX file with `options(threads)`, and return the function that the bench times.

        Whatever can be done once per model belongs here, not in that function. Any exception means that the engine
        cannot load the model; its text goes on record.
        """

    def kernels(self, threads: int) -> dict[str, Any]:
        """By which kernels the engine computes on the CPU that it is shown, by its own account, as plain JSON values.

        Asked once per process, when nothing is left to be timed. `nchwc_block` (channels per block of its layout for
        convolutions) and `exact_byte_sums` (whether products of bytes are added without saturation, as VNNI does) are
        compared with the instruction set (harness.host.isa.proof); anything else is kept on record.
        """
        return {}

    def facts(self, model: Content, threads: int) -> dict[str, Any]:
        """What is worth knowing about how the engine runs this model; asked once per model, never while it is timed.

        `convolutions` (how many there are) and `nchwc_convolutions` (how many of them the engine computes in a blocked
        layout) have fields of their own in accuracy records. Anything else is kept in the record's environment.
        """
        return {}


def load_engine(name: str) -> Engine:
    """The engine of a name in matrix.toml, like onnxruntime-1.16.0. HarnessError where this Python cannot import it."""
    engine: Engine = registry.load("engine", engine_plugin(name), Engine)
    return engine


def runtime_of(name: str) -> str:
    """The engine of a name in matrix.toml with the version that is installed here: "onnxruntime 1.16.0"."""
    return f"{registry.find('engine', engine_plugin(name)).label} {load_engine(name).version()}"


def open_model(engine: Engine, model: OnnxFile, threads: int) -> Infer:
    """Open exactly the file that the job means. HarnessError names a file that is another one or cannot be loaded."""
    content = model.content()
    try:
        return engine.open(content, threads)
    except MemoryError:
        raise
    except Exception as error:  # engines' exceptions share no base class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HarnessError(
            f"{model.onnx}: version {engine.version()} of the engine cannot load it ({reason}); {model.remedy}"
        ) from error
