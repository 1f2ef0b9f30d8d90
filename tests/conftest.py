"""Turn usage reports of all tools off before any test imports one."""

from pipeline import telemetry

telemetry.turn_off()
