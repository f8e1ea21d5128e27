"""Changelog-backed state: windows, device state, registries, rules, alert state."""
