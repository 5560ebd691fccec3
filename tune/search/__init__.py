"""`sr3 search`: the space of inference schedules, algorithms, the objective, confirmation on a second split."""
