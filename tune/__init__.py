"""`search` finds inference schedules (section 2.4); `retraining` trains on new images and promotes what is better."""
