"""`sr3 prepare`: a source is listed, planned into shards, and written by Ray Data tasks; `sr3 verify`."""
