"""Files on a disk and in buckets behind one kind of address; journals and leases on both."""
