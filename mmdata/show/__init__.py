"""Samples for the eye: as plain text, in a terminal with pictures, as JSON."""
