"""What lies on disk: shards, catalog, manifest, and how they are checked."""
