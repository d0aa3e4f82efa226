"""Checks of shards: one rule, one function, one code; `rules.py` lists them all."""
