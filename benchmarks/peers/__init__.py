"""The same windowed job on headrace and on other engines; see README.md."""
