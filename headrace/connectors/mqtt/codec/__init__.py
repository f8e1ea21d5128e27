"""MQTT 3.1.1 and 5 on the wire: pure functions between bytes and packets, for clients and servers; no I/O."""
