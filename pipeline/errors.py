"""The one exception whose message is meant for users."""


class GliaflowError(Exception):
    """An error that the user can fix.

    The message is one sentence that names the file or key, what was found, what was
    expected and what to do. Entry points print it and exit with 1, without a traceback.
    """
