"""Runs things: log, transports, batches, commit, clock, errors."""
