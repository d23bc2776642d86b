"""Metrics, logs and what a person sees in the terminal."""
