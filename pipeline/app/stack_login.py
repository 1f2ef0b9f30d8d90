"""The login of the local stack: made at first start, kept in a file of mode 600."""

import json
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.adapters.checkout.local_paths import LocalPaths
from pipeline.adapters.storage import private_files
from pipeline.errors import GliaflowError

USER = "gliaflow"
RANDOM_BYTES = 24


@dataclass(frozen=True)
class Login:
    """User name and password for the pages of Prefect and MLflow.

    session_key: signs the sessions of MLflow's pages.
    """

    user: str
    password: str
    session_key: str

    @property
    def prefect_auth(self) -> str:
        return f"{self.user}:{self.password}"


def load_or_create(local: LocalPaths) -> Login:
    """Return the login of a checkout's stack; make one if there is none.

    Raises:
        GliaflowError: the file is damaged. It is not replaced: servers may be using it.
    """
    path = local.login
    if not path.exists():
        private_files.make_private_folder(local.folder)
        private_files.make_private_folder(path.parent)
        password, key = (secrets.token_urlsafe(RANDOM_BYTES) for _ in range(2))
        values = {"user": USER, "password": password, "session_key": key}
        private_files.write_private(path, json.dumps(values, indent=2) + "\n")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        login = Login(*(str(values[name]) for name in ("user", "password", "session_key")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GliaflowError(
            f"{path} holds no login ({type(error).__name__}); run `make down`, delete it, and run "
            "`make up` again: a new login is made"
        ) from error
    path.chmod(private_files.FILE_MODE)
    return login


def write_environment(local: LocalPaths, variables: Mapping[str, str]) -> None:
    """Write the file that a shell sources to talk to the stack; mode 600."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    private_files.write_private(local.stack_environment, "\n".join(lines) + "\n")
