"""Amazon Kinesis: messages into a stream instead of the log, and messages of a stream into the log."""
