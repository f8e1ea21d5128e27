"""What the bytes mean: readings, device types, topics, wire codecs."""
