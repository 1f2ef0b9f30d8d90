"""What this machine's processor can do. Knows neither Keras nor any other library."""

from pathlib import Path

CPU = Path("/proc/cpuinfo")
BFLOAT16 = {"amx_bf16", "avx512_bf16"}  # where it multiplies bfloat16 rather than emulate it


def flags() -> set[str]:
    """Words of its instruction sets; none where the system does not tell."""
    try:
        lines = CPU.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith("flags") for word in line.split()[2:]}


def multiplies_bfloat16() -> bool:
    return bool(BFLOAT16 & flags())
