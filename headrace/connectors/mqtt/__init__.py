"""MQTT: devices that publish to a broker, or straight to headrace."""
