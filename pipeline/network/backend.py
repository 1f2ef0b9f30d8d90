"""What depends on the machine and on Keras's backend: devices, and results that repeat."""

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
    """Whether slices should lie where the network runs: on a GPU, and for JAX's whole epochs."""
    return has_gpu() or keras.backend.backend() == "jax"


def use_all_devices(batch: int) -> int:
    """Deal each step's slices to all devices, under JAX; how many there are.

    Every device holds the whole network and takes its share of a batch; sums over the batch
    (loss, batch statistics, gradients) go over all of them, so that results are those of one.

    Raises:
        GliaflowError: the batch cannot be dealt evenly.
    """
    devices = keras.distribution.list_devices() if keras.backend.backend() == "jax" else []
    if len(devices) < 2:
        return 1
    if batch % len(devices):
        raise GliaflowError(
            f"train.batch is {batch} and there are {len(devices)} devices; expected a multiple: "
            "change it, or show fewer devices (CUDA_VISIBLE_DEVICES)"
        )
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    return len(devices)


def keep_compiled(folder: Path) -> None:
    """Let JAX keep what it compiles for a GPU, some 45 s a program, for the next training."""
    if keras.backend.backend() == "jax" and has_gpu():
        import jax

        if jax.config.jax_compilation_cache_dir is None:
            jax.config.update("jax_compilation_cache_dir", str(folder))


def read(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Copies of variables; from a card all are under way before the first is waited for."""
    if keras.backend.backend() == "jax":
        for variable in variables:
            variable.value.copy_to_host_async()
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def policy(precision: str) -> str:
    """Keras's name of a precision: `float32`, or for `bfloat16` its mixed policy.

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
    """Seed every generator and, where no GPU is used, make every operation repeat exactly.

    TensorFlow's graph rewriter takes turns that differ from process to process and change
    the last bit of a sum, also where operations are set to be deterministic. At the widths
    in use it does not pay on a CPU, so it is off there.
    """
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow" and not has_gpu():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
