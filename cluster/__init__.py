"""The outermost layer: the `sr3` command and what runs it on a cluster."""
