"""From a dataset on disk to batches of NumPy arrays."""
