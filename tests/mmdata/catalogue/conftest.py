"""Shards to look for: the conversion that the tests of training data read."""

from tests.flamingo.data.conftest import pages

__all__ = ["pages"]
