"""Where bytes are, and how they become a dataset: reading, writing whole or not at all, publishing."""
