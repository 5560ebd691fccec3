"""Around trained stages: `search` finds inference schedules (section 2.4), `retraining` trains on what is new and promotes."""
