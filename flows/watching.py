"""The inbox of a project, for the flow that watches it and for the command that shows it."""

from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.adapters import inbox, locks
from pipeline.adapters.inbox import Inbox
from pipeline.adapters.project import Project


def open_inbox(own: Project) -> Inbox:
    """The inbox of a project, as its params say."""
    params = own.params()
    wanted = params.watch
    return Inbox(
        inbox.open_place(wanted.source, wanted.endpoint_url, own.root),
        incoming=own.path("incoming"),
        state=own.root / ".local" / "inbox",
        lock=incoming_lock(own),
        endpoint_url=wanted.endpoint_url,
        max_gib=params.fetch.max_gib,
        settle_seconds=wanted.settle_seconds,
    )


def incoming_lock(own: Project) -> Path:
    return own.root / ".local" / "incoming.lock"


def incoming_held(own: Project) -> AbstractContextManager[None]:
    """Nothing arrives in `data/incoming` while this is held."""
    return locks.alone(incoming_lock(own))
