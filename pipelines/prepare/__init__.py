"""`sr3 prepare` lists a source, plans its shards and writes them with Ray Data; `sr3 verify` checks them."""
