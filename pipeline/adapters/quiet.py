"""Keeps native libraries from filling the terminal while they are loaded.

TensorFlow writes about CPU features and missing GPUs straight to the file of standard
error, before any setting of its own is read.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Hold back what is written to standard error; show it after all where loading fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def keras_loaded() -> None:
    """Import Keras and its backend without their noise."""
    with loading():
        import keras  # noqa: F401
