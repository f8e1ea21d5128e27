"""One outside system per file: sources bring messages in, sinks carry them out."""
