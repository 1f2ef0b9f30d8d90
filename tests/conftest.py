import sys
from pathlib import Path

from pipeline import telemetry

# Test modules share `making`, and are no package themselves.
sys.path.insert(0, str(Path(__file__).parent))
telemetry.turn_off()
