"""HTTP ingest: devices post what they measure."""
