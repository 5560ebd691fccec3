"""`sr3 prepare` lists a source, plans its shards and writes them in Ray tasks; `sr3 verify` checks them."""
