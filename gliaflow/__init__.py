"""The `gliaflow` command: one module per command group; `printing` formats the output."""
