"""Open the model registry that a project's parameters name."""

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.tracking.registry import Registry


def open_registry(project: Project) -> Registry:
    """Return the registry at `register.tracking_uri`, or `MLFLOW_TRACKING_URI`."""
    return Registry(project.params.register_, project.root, lock=project.local.registry_lock)
