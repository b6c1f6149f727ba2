"""Versions of a dataset: edits that are made at once or not at all, their history, and what they differ in."""
