"""Notifications: who is told of an alert, by which channels, and when."""
