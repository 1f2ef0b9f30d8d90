"""The fault matrix: what is broken on purpose, and what must hold after it. `make faults`."""
