"""How fast gliaflow trains and predicts, beside what anyone would pick instead."""
