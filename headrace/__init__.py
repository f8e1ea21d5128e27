"""headrace: an asyncio stream-processing engine for IoT telemetry on Kafka-style logs."""
