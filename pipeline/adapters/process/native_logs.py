"""Keep native libraries from writing to the terminal while they load.

TensorFlow reports CPU features and missing GPUs on the file descriptor of standard error,
before it reads any of its settings.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Hold back writes to standard error; show them only if the block raises."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            buffer.seek(0)
            os.write(stderr, buffer.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def import_keras() -> None:
    """Import Keras and its backend without their start-up messages."""
    with held_back():
        import keras  # noqa: F401  # imported for its side effect: later imports are silent
