"""The log on Apache Kafka: aiokafka's clients in a thread of their own, driven as `headrace.engine.log.Log`."""
