"""Datasets -> files that other tools read: one file per format, the mirror of sources."""
