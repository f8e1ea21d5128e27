"""Alerts: who watches, when an alert opens and ends, and what people do with it."""
