from harness.plan.cpu_table import cpus
from harness.reporting.known_cpus import cpus_table


def test_every_cpu_is_a_row_with_what_it_adds_to_one_above_it() -> None:
    lines = cpus_table().splitlines()
    rows = {line.split("|")[1].strip(" `"): line for line in lines if line.startswith("| `")}
    assert list(rows) == list(cpus())
    assert "those of Xeon-8180, avx512_vnni " in rows["Xeon-8280"]
    assert "AVX-512 with BF16 and AMX" in rows["Xeon-8480"]
    assert "fma" in lines[-1] and "avx512f" not in lines[-1], "the first one's features are listed whole"
