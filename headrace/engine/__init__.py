"""What runs things: the App, batches, the log, commits, sources and sinks, clock, errors."""
