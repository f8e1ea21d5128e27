"""One agent or detector per file: pure operators over batches."""
