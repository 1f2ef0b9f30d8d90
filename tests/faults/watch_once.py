"""Check the inbox once, as the flow `watch` does on a separate server. Runs in a checkout.

Says `ready` before the check, and at its end how many retrainings the server ever started.
"""

import sys
from pathlib import Path

from flows import temporary_server

READY = "ready: the inbox is checked now"


def main() -> int:
    """Apply the deployments, run the flow; return the exit code."""
    temporary_server.use()
    from flows import deployments
    from flows.watch import watch

    root = Path.cwd()
    deployments.apply(root)
    print(READY, flush=True)
    state = watch(str(root), return_state=True)
    print(f"retrainings: {_retrainings()}", flush=True)
    return 0 if state.is_completed() else 1


def _retrainings() -> int:
    """Count the runs of the flow `retrain`."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    of_retrain = FlowFilter(name=FlowFilterName(any_=["retrain"]))
    with get_client(sync_client=True) as client:
        return len(client.read_flow_runs(flow_filter=of_retrain))


if __name__ == "__main__":
    sys.exit(main())
