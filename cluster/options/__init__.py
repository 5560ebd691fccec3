"""Command lines as typed dataclasses: how options are declared, read, listed and explained."""
