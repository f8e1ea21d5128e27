"""Sparkplug B: what edge nodes say over MQTT, with the state that it takes to understand them."""
