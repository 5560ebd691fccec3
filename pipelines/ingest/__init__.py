"""From shards to training batches: the order of samples, decoding, the cache of bucket shards."""
