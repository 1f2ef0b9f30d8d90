"""What depends on the machine and on Keras's backend: devices and repeatable results."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from pipeline.errors import GliaflowError
from pipeline.network import processor


def has_gpu() -> bool:
    devices = keras.distribution.list_devices()  # JAX raises where it is asked for gpu alone
    return any(device.startswith(("gpu", "cuda", "rocm")) for device in devices)


def keeps_slices_on_device() -> bool:
    """Return whether training is faster with all slices on the device.

    It is on a GPU, and under JAX, which takes a whole epoch in one program.
    """
    return has_gpu() or keras.backend.backend() == "jax"


def use_all_devices(batch: int) -> int:
    """Distribute the slices of each step over all devices, under JAX; return their number.

    Every device holds the whole network and takes its share of a batch. Sums over the batch
    (loss, batch statistics, gradients) go over all devices, so that results are those of a
    single one.

    Args:
        batch: slices per step.

    Raises:
        GliaflowError: the batch cannot be divided evenly.
    """
    devices = keras.distribution.list_devices() if keras.backend.backend() == "jax" else []
    if len(devices) < 2:
        return 1
    if batch % len(devices):
        raise GliaflowError(
            f"train.batch is {batch} and there are {len(devices)} devices; expected a multiple of "
            "their number: change train.batch, or make fewer devices visible "
            "(CUDA_VISIBLE_DEVICES)"
        )
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    return len(devices)


def keep_compiled(folder: Path) -> None:
    """Cache the programs that JAX compiles for a GPU, about 45 s each, for later trainings.

    A cache that the user has set is left as it is.
    """
    if keras.backend.backend() == "jax" and has_gpu():
        import jax

        if jax.config.jax_compilation_cache_dir is None:
            jax.config.update("jax_compilation_cache_dir", str(folder))


def to_numpy(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Copy variables to the host. From a GPU all copies start before the first is awaited."""
    if keras.backend.backend() == "jax":
        for variable in variables:
            variable.value.copy_to_host_async()
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def policy(precision: str) -> str:
    """Return Keras's name of a precision.

    Args:
        precision: `float32`, or `bfloat16` for its mixed policy.

    Raises:
        GliaflowError: bfloat16 on a CPU that would only emulate it, many times slower.
    """
    if precision == "float32":
        return precision
    if not has_gpu() and not processor.multiplies_bfloat16():
        raise GliaflowError(
            f"train.precision is {precision}, and this CPU has neither "
            f"{' nor '.join(sorted(processor.BFLOAT16))} (read from {processor.CPU}): set it to "
            "float32"
        )
    return f"mixed_{precision}"


def make_repeatable(seed: int) -> None:
    """Seed every generator and, without a GPU, make every operation repeat exactly.

    TensorFlow's graph optimizer works in an order that differs from process to process and
    changes the last bit of a sum, even with deterministic operations. At the widths in use it
    does not pay on a CPU, so it is off there.
    """
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow" and not has_gpu():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
