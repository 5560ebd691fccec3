"""Writing shards: one task a shard, in parallel, with decoding that survives damaged images."""
