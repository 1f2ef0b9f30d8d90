"""The faults of the matrix, one module per part; importing this package registers them all."""

from faults.cases import clock, disk, inputs, kill, server, stack, table

__all__ = ["clock", "disk", "inputs", "kill", "server", "stack", "table"]
