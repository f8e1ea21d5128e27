"""TimescaleDB or plain PostgreSQL: the sink, its schema, and what reads it."""
