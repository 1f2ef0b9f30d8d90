"""Steps after a decision: push data to the remote, commit dvc.lock, notify people.

None of them changes the decision. A step that fails raises; the model stays registered and
the decision stands.
"""

import json
import subprocess
from pathlib import Path

from pipeline.adapters.checkout import commands
from pipeline.adapters.checkout.project import Project
from pipeline.adapters.process import processes
from pipeline.domain.decisions import DecisionRecord
from pipeline.errors import GliaflowError

BRANCH = "retrained"
NOTIFY_SECONDS = 60
GRACE_SECONDS = 5


def push(root: Path) -> str:
    """Push DVC's cache to the default remote, then check that the remote has everything.

    Returns:
        What was done, as a sentence.

    Raises:
        GliaflowError: the remote refused, or lacks files afterwards.
    """
    remote = commands.dvc(root, "config", "core.remote")
    if not remote:
        return "no DVC remote is configured (`dvc remote add -d NAME URL`): nothing was pushed"
    commands.dvc(root, "push", "--quiet")
    answer = commands.dvc(root, "status", "--cloud", "--json")
    try:
        states: dict[str, str] = json.loads(answer)
    except ValueError as error:
        raise GliaflowError(
            f"`dvc status --cloud --json` printed no JSON: {answer[:200]!r}; whether the DVC remote "
            f"{remote} has everything is not known: run the command by hand"
        ) from error
    missing = [path for path, state in states.items() if state in ("new", "missing")]
    if missing:
        raise GliaflowError(
            f"the DVC remote {remote} lacks {', '.join(sorted(missing)[:5])} after a push; "
            "check the remote, then run `dvc push`"
        )
    return f"everything is at the DVC remote {remote}"


def track_batches(root: Path, incoming: Path) -> None:
    """Add untracked batches to DVC: each gets a `.dvc` file beside it."""
    untracked = [
        str(path.relative_to(root))
        for path in sorted(incoming.iterdir())
        if path.is_dir() and not path.with_name(f"{path.name}.dvc").exists()
    ]
    if untracked:
        commands.dvc(root, "add", "--quiet", *untracked)


def commit(project: Project, decision: DecisionRecord) -> str:
    """Commit dvc.lock and the batches' `.dvc` files on the branch `retrained`.

    The work tree, its index and the current branch stay as they are.

    Returns:
        What was done, as a sentence.
    """
    root = project.root
    branch = f"refs/heads/{BRANCH}"
    if commands.git(root, "symbolic-ref", "--quiet", "HEAD", check=False) == branch:
        raise GliaflowError(
            f"the branch {BRANCH} is checked out in {root} and retrainings commit to it; check "
            "out another branch"
        )
    batches = sorted(project.path("incoming").glob("*.dvc"))
    paths = ["dvc.lock", *(str(path.relative_to(root)) for path in batches)]
    tip = commands.git(root, "rev-parse", "--verify", "--quiet", branch, check=False)
    parent = tip or commands.git(root, "rev-parse", "HEAD")
    tree = _tree_with(project, paths)
    if tip and tree == commands.git(root, "rev-parse", f"{parent}^{{tree}}"):
        return f"the branch {BRANCH} holds this state already"
    message = f"{decision.headline}\n\ndigest {decision.candidate.digest}"
    made = commands.git(root, "commit-tree", tree, "-p", parent, "-m", message)
    commands.git(root, "update-ref", branch, made, tip or "0" * 40)
    return f"committed {', '.join(paths)} on the branch {BRANCH}"


def _tree_with(project: Project, paths: list[str]) -> str:
    """Write the git tree of HEAD with the current content of `paths`; return its id."""
    root, index = project.root, project.local.git_index
    index.parent.mkdir(exist_ok=True)
    index.unlink(missing_ok=True)
    env = {"GIT_INDEX_FILE": str(index)}
    try:
        commands.git(root, "read-tree", "HEAD", env=env)
        commands.git(root, "add", "--force", "--", *paths, env=env)
        return commands.git(root, "write-tree", env=env)
    finally:
        index.unlink(missing_ok=True)


def notify(command: str, decision: DecisionRecord, root: Path) -> str:
    """Run a shell command with the decision as JSON on its standard input.

    Returns:
        What was done, as a sentence.

    Raises:
        GliaflowError: the command failed, or took longer than `NOTIFY_SECONDS`.
    """
    with subprocess.Popen(  # noqa: S602 - the operator's command, from params.yaml
        command,
        shell=True,
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(json.dumps(decision.to_json()), timeout=NOTIFY_SECONDS)
        except subprocess.TimeoutExpired:
            processes.end_group(process.pid, grace_seconds=GRACE_SECONDS)
            raise GliaflowError(
                f"watch.notify `{command}` took longer than {NOTIFY_SECONDS} s and was ended"
            ) from None
    if process.returncode:
        output = " ".join(output.split())[:200]
        raise GliaflowError(f"watch.notify `{command}` ended with {process.returncode}: {output}")
    return "sent the decision to watch.notify"
