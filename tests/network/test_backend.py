import pytest

from pipeline.errors import GliaflowError
from pipeline.network import backend, processor

on_a_cpu = pytest.mark.skipif(backend.has_gpu(), reason="a GPU is here; the CPU is not asked")


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """Says which flags the CPU has."""

    def has(flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"model name : any\nflags : {flags}\n")
        monkeypatch.setattr(processor, "CPU", tmp_path / "cpuinfo")

    return has


def test_float32_asks_nothing_of_the_machine(cpu):
    cpu("sse2")
    assert backend.policy("float32") == "float32"


@on_a_cpu
@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bfloat16_is_mixed_where_the_cpu_multiplies_it(cpu, flag):
    cpu(f"sse2 {flag} avx2")
    assert backend.policy("bfloat16") == "mixed_bfloat16"


@on_a_cpu
def test_bfloat16_is_refused_where_the_cpu_would_emulate_it(cpu):
    cpu("sse2 avx2 avx512f")
    with pytest.raises(GliaflowError, match=r"neither amx_bf16 nor avx512_bf16.*set it to float32"):
        backend.policy("bfloat16")
