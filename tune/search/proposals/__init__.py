"""Which schedules are tried."""
