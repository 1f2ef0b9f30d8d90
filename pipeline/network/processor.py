"""What this machine's processor can do. Does not know Keras or any other library."""

from pathlib import Path

CPU = Path("/proc/cpuinfo")
BFLOAT16 = {"amx_bf16", "avx512_bf16"}  # with one of them it multiplies bfloat16 in hardware


def flags() -> set[str]:
    """Return the names of its instruction sets; none if the system does not list them."""
    try:
        lines = CPU.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith("flags") for word in line.split()[2:]}


def multiplies_bfloat16() -> bool:
    """Return whether it multiplies bfloat16 in hardware rather than emulates it."""
    return bool(BFLOAT16 & flags())
