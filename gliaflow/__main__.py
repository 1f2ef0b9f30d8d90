"""`python -m gliaflow` is the command `gliaflow`."""

from gliaflow.main import main

main()
