"""What every command that computes shares: actors, memory, progress on a terminal, provenance."""
