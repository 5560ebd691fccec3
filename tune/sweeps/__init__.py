"""Many searches, or many trainings, by one command, with one report."""
