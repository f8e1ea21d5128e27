"""One agent or detector per file: pure operators over batches."""

from headrace.agents.alerting.alerts import Alerts
from headrace.agents.ingest import Ingest, IngestConfig
from headrace.agents.rollup import Rollup
from headrace.agents.three_sigma import ThreeSigma

__all__ = ["Alerts", "Ingest", "IngestConfig", "Rollup", "ThreeSigma"]
