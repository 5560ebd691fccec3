"""`sr3 retrain`: train on what is new, compare with the promoted model, promote only what is better."""
