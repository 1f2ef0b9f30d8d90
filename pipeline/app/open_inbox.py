"""Open the inbox that a project's parameters name."""

from contextlib import AbstractContextManager

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.process import locks
from pipeline.adapters.scans import inbox_places
from pipeline.adapters.scans.inbox import Inbox
from pipeline.adapters.scans.limits import Limits


def open_inbox(project: Project) -> Inbox:
    """Return the inbox at `watch.source`."""
    watch = project.params.watch
    return Inbox(
        inbox_places.open_place(watch.source, watch.endpoint_url, project.root),
        incoming=project.path("incoming"),
        state=project.local.inbox,
        lock=project.local.incoming_lock,
        endpoint_url=watch.endpoint_url,
        limits=Limits.from_params(project.params.fetch),
        settle_seconds=watch.settle_seconds,
    )


def hold_incoming(project: Project) -> AbstractContextManager[None]:
    """Keep batches from being added to `data/incoming` for the duration of the block."""
    return locks.hold(project.local.incoming_lock)
