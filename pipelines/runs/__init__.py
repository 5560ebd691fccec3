"""Run folders on a disk and in buckets: what a training leaves, and how it is found again."""
