"""What befalls the workers of a stage while it trains: a node that joins, a worker that is slower than the others."""
