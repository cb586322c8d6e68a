from harness.bench.remarks import lines, remarks

GRAPH = "[W:onnxruntime:, graph.cc:1492 Graph]"
PRINTED = f"""
\x1b[0;93m2026-11-27 13:25:49.701603680 {GRAPH} Initializer a appears in graph inputs.\x1b[m
\x1b[0;93m2026-11-27 13:25:49.701672258 {GRAPH} Initializer b appears in graph inputs.\x1b[m
\x1b[0;93m2026-11-27 13:25:50.701672258 {GRAPH} Initializer b appears in graph inputs.\x1b[m
2026-11-27 13:25:49.7 [E:onnxruntime:Default, env.cc:254 ThreadMain] pthread_setaffinity_np failed

harness cpuid: CPUID is answered in 53 places of patched copies; 15 leaves are masked
something else: plain
"""


def test_lines_lose_what_differs_every_time_and_are_said_once() -> None:
    assert lines(PRINTED) == [
        f"{GRAPH} Initializer a appears in graph inputs.",
        f"{GRAPH} Initializer b appears in graph inputs.",
        "[E:onnxruntime:Default, env.cc:254 ThreadMain] pthread_setaffinity_np failed",
        "something else: plain",
    ]
    assert lines(" \n") == []


def test_what_is_said_of_every_weight_is_said_once_with_a_count() -> None:
    assert remarks(lines(PRINTED)) == [
        "Initializer a appears in graph inputs. (and 1 more like it)",
        "pthread_setaffinity_np failed",
        "something else: plain",
    ]
