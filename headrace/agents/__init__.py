"""One agent or detector per file: pure operators over batches."""

from headrace.agents.ingest import Ingest, IngestConfig
from headrace.agents.rollup import Rollup
from headrace.agents.three_sigma import ThreeSigma
from headrace.agents.threshold_alert import ThresholdAlert

__all__ = ["Ingest", "IngestConfig", "Rollup", "ThreeSigma", "ThresholdAlert"]
