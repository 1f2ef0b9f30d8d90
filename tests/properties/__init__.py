"""Property tests: whatever comes from outside is read, or refused with a reason.

Each test starts from good input, changes it and calls the code that reads it. `search.py` says for
how long, `mutations.py` how input is changed, `kept.py` where failing inputs stay.
"""
