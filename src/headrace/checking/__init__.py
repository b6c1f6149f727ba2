"""What a dataset holds, and whether every byte of it is what was promised."""
