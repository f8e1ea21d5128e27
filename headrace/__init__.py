"""headrace: an asyncio stream-processing engine for IoT telemetry on Kafka-style logs."""

__version__ = "0.1.0"

__all__ = ["__version__"]
