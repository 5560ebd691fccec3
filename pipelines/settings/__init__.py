"""Typed, checked settings of every command, and the presets. No torch, no Ray."""
