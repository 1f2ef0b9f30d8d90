"""The one exception that a person is meant to read."""


class GliaflowError(Exception):
    """Something a user can mend.

    The message is one sentence that names the file or key, what was found, what was
    expected and what to do. Entry points print it and exit with 1, without a traceback.
    """
