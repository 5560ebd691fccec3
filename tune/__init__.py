"""Section 2.4's search for the inference schedule: one training serves all schedules, held-out FID chooses."""
