"""Remove passwords from text that people or servers get to see."""

import re

# scheme://user:password@host; the password may contain anything but a space, a slash or a quote.
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/'\"]*@")


def redact(text: str) -> str:
    """Replace the user name and password of every address in a text by `***`.

    `postgresql://ada:pw@db/mlflow` becomes `postgresql://***@db/mlflow`. Text without
    credentials is returned as it is.
    """
    return _CREDENTIALS.sub(r"\g<scheme>***@", text)
