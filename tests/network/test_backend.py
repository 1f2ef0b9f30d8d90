import pytest

from pipeline.errors import GliaflowError
from pipeline.network import backend, processor

on_cpu = pytest.mark.skipif(backend.has_gpu(), reason="with a GPU the CPU's flags do not matter")


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """Return a function that sets the flags of the CPU."""

    def set_flags(flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"model name : any\nflags : {flags}\n")
        monkeypatch.setattr(processor, "CPU", tmp_path / "cpuinfo")

    return set_flags


def test_float32_needs_no_flag(cpu):
    cpu("sse2")
    assert backend.policy("float32") == "float32"


@on_cpu
@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bfloat16_is_mixed_precision_on_a_cpu_that_multiplies_it(cpu, flag):
    cpu(f"sse2 {flag} avx2")
    assert backend.policy("bfloat16") == "mixed_bfloat16"


@on_cpu
def test_bfloat16_is_refused_on_a_cpu_that_would_emulate_it(cpu):
    cpu("sse2 avx2 avx512f")
    with pytest.raises(GliaflowError, match=r"neither amx_bf16 nor avx512_bf16.*set it to float32"):
        backend.policy("bfloat16")
