"""What follows once shards are written: manifests, duplicates, what is missing, status, verification."""
