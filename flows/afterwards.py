"""What follows a decision: data to the remote, the lock into git, word to people.

None of it changes the decision. A step that fails is told as a sentence; the model stays
registered and judged.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from flows.wording import headline
from pipeline.adapters.project import Project
from pipeline.errors import GliaflowError

BRANCH = "retrained"
NOTIFY_SECONDS = 60


def push(root: Path) -> str:
    """Bring what DVC keeps to the default remote, and ask the remote whether it is there.

    Returns:
        What was done, in words.

    Raises:
        GliaflowError: the remote refused, or lacks something afterwards.
    """
    remote = _run(root, sys.executable, "-m", "dvc", "config", "core.remote", check=False).strip()
    if not remote:
        return "no DVC remote is configured (`dvc remote add -d NAME URL`): nothing was pushed"
    _run(root, sys.executable, "-m", "dvc", "push", "--quiet")
    states = json.loads(
        _run(root, sys.executable, "-m", "dvc", "status", "--cloud", "--json") or "{}"
    )
    missing = [path for path, state in states.items() if state in ("new", "missing")]
    if missing:
        raise GliaflowError(
            f"the DVC remote {remote} lacks {', '.join(sorted(missing)[:5])} after a push; "
            "look at it, then `dvc push`"
        )
    return f"everything is at the DVC remote {remote}"


def track_batches(root: Path, incoming: Path) -> None:
    """Put batches under DVC that are not yet: each gets a `.dvc` file beside it."""
    untracked = [
        str(path.relative_to(root))
        for path in sorted(incoming.iterdir())
        if path.is_dir() and not path.with_name(f"{path.name}.dvc").exists()
    ]
    if untracked:
        _run(root, sys.executable, "-m", "dvc", "add", "--quiet", *untracked)


def commit(project: Project, decision: dict[str, Any]) -> str:
    """Commit dvc.lock and the batches' `.dvc` files on a branch of their own.

    The work tree, its index and its branch stay as they are.

    Returns:
        What was done, in words.
    """
    root = project.root
    if _git(root, "symbolic-ref", "--quiet", "HEAD", check=False) == f"refs/heads/{BRANCH}":
        raise GliaflowError(
            f"the branch {BRANCH} is checked out in {root}; it is written to from outside: check "
            "out another one"
        )
    incoming = project.path("incoming")
    paths = ["dvc.lock", *(str(p.relative_to(root)) for p in sorted(incoming.glob("*.dvc")))]
    known = _git(root, "rev-parse", "--verify", "--quiet", f"refs/heads/{BRANCH}", check=False)
    parent = known or _git(root, "rev-parse", "HEAD")
    index = root / ".local" / "commit.index"
    index.parent.mkdir(exist_ok=True)
    index.unlink(missing_ok=True)
    own = {"GIT_INDEX_FILE": str(index)}
    _git(root, "read-tree", "HEAD", env=own)
    _git(root, "add", "--force", "--", *paths, env=own)
    tree = _git(root, "write-tree", env=own)
    index.unlink(missing_ok=True)
    if known and tree == _git(root, "rev-parse", f"{parent}^{{tree}}"):
        return f"the branch {BRANCH} holds this state already"
    message = f"{headline(decision)}\n\ndigest {decision['candidate']['digest']}"
    made = _git(root, "commit-tree", tree, "-p", parent, "-m", message)
    _git(root, "update-ref", f"refs/heads/{BRANCH}", made, known or "0" * 40)
    return f"committed {', '.join(paths)} on the branch {BRANCH}"


def notify(command: str, decision: dict[str, Any], root: Path) -> str:
    """Run a command with the decision as JSON on its standard input.

    Raises:
        GliaflowError: it failed, or took over a minute.
    """
    process = subprocess.Popen(  # noqa: S602 - the operator's own command, from params.yaml
        command,
        shell=True,
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(json.dumps(decision), timeout=NOTIFY_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise GliaflowError(f"watch.notify `{command}` took over a minute; it was ended") from None
    if process.returncode:
        said = " ".join(said.split())[:200]
        raise GliaflowError(f"watch.notify `{command}` ended with {process.returncode}: {said}")
    return "the decision was passed on"


def _git(root: Path, *arguments: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    author = {
        "GIT_AUTHOR_NAME": "gliaflow", "GIT_AUTHOR_EMAIL": "gliaflow@localhost",
        "GIT_COMMITTER_NAME": "gliaflow", "GIT_COMMITTER_EMAIL": "gliaflow@localhost",
    }  # fmt: skip
    return _run(root, "git", *arguments, check=check, env={**author, **(env or {})}).strip()


def _run(root: Path, *command: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if check and done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:300]
        shown = " ".join(command).replace(f"{sys.executable} -m ", "")
        raise GliaflowError(f"`{shown}` failed: {said}")
    return done.stdout
