"""Notifications: texts, channels, and the delivery of what agents decided."""
