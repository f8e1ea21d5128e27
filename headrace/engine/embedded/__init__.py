"""The embedded transport: a durable log in one SQLite file, for one worker process and nothing installed."""
