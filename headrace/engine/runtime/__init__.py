"""How Faust runs batches: its transport, consumer, conductor, agent and table manager, with `Batch` for events."""
