import subprocess
import sys
from pathlib import Path

import pytest

from tests import checkouts

ROOT = Path(__file__).parent.parent.parent
CODE = "from flows import temporary_server; temporary_server.use()"


@pytest.mark.slow
def test_servers_started_at_once_in_an_empty_home_all_answer(tmp_path):
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", CODE], cwd=ROOT, text=True,
            env=checkouts.environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(3)
    ]  # fmt: skip
    outputs = [start.communicate(timeout=300)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], outputs
