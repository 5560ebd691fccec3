"""Which image goes to which shard, and which shards are there: the plan and the index of a stage."""
