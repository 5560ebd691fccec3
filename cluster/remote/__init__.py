"""Clusters as seen from this machine: addresses, submission of jobs, their logs, manifests for timers."""
