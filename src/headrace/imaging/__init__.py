"""Pixels, and what is drawn on them."""
