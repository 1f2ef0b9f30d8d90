"""What depends on the machine and on Keras's backend: devices, and results that repeat."""

import keras


def has_gpu() -> bool:
    return bool(keras.distribution.list_devices("gpu"))


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
