"""Files under `.local/`: state of this machine that neither git nor DVC tracks.

Paths that a stage takes as an argument (`.local/checkpoints`, `.local/ingest`,
`.local/training.lock`, `.local/compiled`) are named in dvc.yaml instead.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LocalPaths:
    """Paths below `.local/` of the checkout at `root`."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / ".local"

    @property
    def retraining_lock(self) -> Path:
        """Held by a retraining for its whole run."""
        return self.folder / "retraining.lock"

    @property
    def incoming_lock(self) -> Path:
        """Held while `data/incoming` changes, or is read as a whole."""
        return self.folder / "incoming.lock"

    @property
    def registry_lock(self) -> Path:
        """Held while a model version is registered."""
        return self.folder / "registry.lock"

    @property
    def comparison(self) -> Path:
        """Pictures of the last comparison of a candidate with the champion."""
        return self.folder / "comparison.json"

    @property
    def login(self) -> Path:
        """User name and password of the local stack; mode 600."""
        return self.folder / "stack" / "login.json"

    @property
    def stack_environment(self) -> Path:
        """Variables that a shell sources to talk to the local stack; mode 600."""
        return self.folder / "stack" / "environment"

    @property
    def inbox(self) -> Path:
        """State of the inbox between checks."""
        return self.folder / "inbox"

    @property
    def runtimes(self) -> Path:
        """Exported models, a folder per model."""
        return self.folder / "runtimes"

    @property
    def cross_validation(self) -> Path:
        """Trained and scored folds."""
        return self.folder / "cross-validation"

    @property
    def git_index(self) -> Path:
        """Temporary git index for commits that leave the work tree alone."""
        return self.folder / "commit.index"

    @property
    def stack(self) -> Path:
        """Logs and process ids of the local stack."""
        return self.folder / "stack"

    @property
    def prefect_home(self) -> Path:
        return self.folder / "prefect"
