"""Everything that can be configured, section by section; docs/configuration.md is written from it."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, Strict, field_validator, model_validator

from headrace.agents.detect import DEFAULT
from headrace.agents.ingest import IngestConfig
from headrace.agents.notifying.settings import NotifySettings
from headrace.agents.rollup import Emit
from headrace.agents.three_sigma import MOST_PANES
from headrace.connectors.archive.settings import ArchiveSettings, RetentionSettings
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.kinesis.settings import KinesisSettings
from headrace.connectors.kinesis.source_settings import KinesisSourceSettings
from headrace.connectors.mqtt.listener_config import ListenerConfig
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.notifications.delivery_settings import DeliverySettings
from headrace.connectors.notifications.settings import ChannelsSettings
from headrace.connectors.redis.settings import RedisSettings
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.timescale.settings import TimescaleSettings
from headrace.connectors.topic_profile import SHIPPED, TopicProfiles
from headrace.engine.config import LayeredSettings, resolve_secret
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.monitor import MonitorSettings
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.schemas.window import LONGEST_MS, Window, known_zone, parse_window
from headrace.tables.aggregates import Aggregation

#: TCP ports.
PORTS = range(1, 65_536)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LogSettings(_Section):
    """Where records are."""

    url: str = Field(
        "embedded://",
        description="`embedded://`, in the data folder, or `kafka://host:port,host:port`",
    )

    @field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        hosts = url.removeprefix("kafka://").split(",")
        fits = [re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^/@:\s\[\]]+)(:(\d{1,5}))?", host) for host in hosts]
        if url != "embedded://" and not (
            url.startswith("kafka://") and all(each and int(each[3] or 1) in PORTS for each in fits)
        ):
            raise ValueError("must be embedded://, or kafka://host:port,host:port; user and password belong in [kafka]")
        return url

    partitions: int = Field(4, ge=1, le=256, description="per topic; fixed when the data folder is made")
    retention: float = Field(7 * 86_400.0, gt=0, description="seconds of append time that records are kept")
    retention_bytes: int = Field(1 << 30, ge=1 << 20, description="bytes kept per partition")


class RollupSettings(_Section):
    """Event-time windows."""

    windows: tuple[str, ...] = Field(
        ("1m", "1h"),
        min_length=1,
        description="`15m`, `1d`, `1h every 15m`, `sliding 10m`, `session 30m`, `count 100`; numbers are seconds",
    )
    time_zone: str = Field("UTC", description="where windows of whole days begin at midnight, IANA name")
    grace: float = Field(
        300.0, ge=0.001, le=LONGEST_MS / 1000, description="seconds that late data may correct a closed window"
    )
    variance: bool = Field(False, description="variance and standard deviation of each measure too")
    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], ...] = Field(
        (), description="percentiles of each measure, as in `[50, 95, 99]`; 1 KiB per measure and window"
    )
    emit: Emit = Field(
        "close", description="send windows on `close`, open ones that changed with each commit (`update`), or `both`"
    )
    idle_timeout: float = Field(
        60.0, ge=0, description="seconds without a message after which time itself moves the watermark on; 0: never"
    )

    @field_validator("time_zone")
    @classmethod
    def _known(cls, value: str) -> str:
        return known_zone(value)

    @field_validator("windows", mode="before")
    @classmethod
    def _parsed(cls, value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError('write a list, as in ["1m", "1h"]')
        texts, wrong = [], []
        for each in value:
            text = f"{each}s" if isinstance(each, int) and not isinstance(each, bool) else str(each)
            try:
                parse_window(text)
                texts.append(text)
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            raise ValueError("; ".join(wrong))
        return tuple(texts)

    def kinds(self) -> list[Window]:
        """The windows."""
        return [parse_window(each, self.time_zone) for each in self.windows]

    def aggregation(self) -> Aggregation:
        """What is kept of each measure."""
        return Aggregation(self.variance, tuple(sorted(set(self.percentiles))))


class DetectSettings(_Section):
    """Anomaly detectors."""

    detectors: tuple[str, ...] = Field(
        DEFAULT,
        description="of ensemble, stuck, cadence, seasonal, robust, holt, rate-of-change, page-hinkley, three-sigma",
    )
    parameters: dict[str, dict[str, Annotated[float, Strict()]]] = Field(
        {}, description="arguments of detectors, as in `ensemble = { threshold = 4 }`"
    )
    quiet: float = Field(
        3600.0,
        ge=0,
        description="seconds that a detector says no more about a series, unless it is 1.6 times as unusual",
    )
    pane: int = Field(3600, ge=1, description="three-sigma: seconds of event time per pane of the baseline")
    panes: int = Field(168, ge=1, le=MOST_PANES, description="three-sigma: panes in the baseline; 168 hours are 7 days")
    warm_up: int = Field(50, ge=2, description="three-sigma: readings in the baseline before the first anomaly, count")
    sigmas: float = Field(3.0, gt=0, description="three-sigma: standard deviations from the mean that make an anomaly")


class AlertSettings(_Section):
    """Alert rules."""

    rules: Path | None = Field(None, description="TOML file with [[rule]] tables; the shipped rules if left out")


class DatabaseSettings(_Section):
    """Where readings are stored."""

    dsn: SecretStr | None = Field(
        None,
        description="postgresql://… of a server; `env:NAME` or `file:PATH` names where it is; embedded if left out",
    )

    migration_dsn: SecretStr | None = Field(
        None,
        description="likewise, of the role that makes and changes tables; `dsn` then only needs to read and write rows",
    )
    connect_timeout: float = Field(
        10.0, gt=0, le=600, description="seconds for connecting, after which the server counts as gone"
    )
    statement_timeout: float = Field(
        60.0, gt=0, le=3600, description="seconds for one statement of the sink, after which it is tried again, smaller"
    )

    def timeouts(self) -> dict[str, float]:
        """Arguments of `asyncpg.connect`."""
        return {"timeout": self.connect_timeout, "command_timeout": self.statement_timeout}

    @field_validator("dsn", "migration_dsn")
    @classmethod
    def _follow_reference(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        dsn = resolve_secret(value.get_secret_value())
        if not dsn.startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql://")
        for place in urlsplit(dsn).netloc.rpartition("@")[2].split(","):
            port = place.rpartition("]")[2].rpartition(":")[2] if ":" in place.rpartition("]")[2] else "5432"
            if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
                raise ValueError(f"has a port that is none: {port!r}")
        return SecretStr(dsn)

    @model_validator(mode="after")
    def _both(self) -> Self:
        if self.migration_dsn is not None and self.dsn is None:
            raise ValueError("migration_dsn goes with dsn: name both, of the same database")
        return self


class BridgeSettings(_Section):
    """Inbound messages."""

    into: Literal["log", "kinesis"] = Field("log", description="where messages go: the log, or the stream of [kinesis]")


class Settings(LayeredSettings):
    """Everything that can be configured. `HEADRACE_ROLLUP__GRACE=60` sets `grace` of `[rollup]`."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level logged")
    device_types: Path | None = Field(None, description="folder with device type files of your own")
    agents: Path | None = Field(None, description="folder with agents of your own; `headrace_agents` if that is there")
    profiles: TopicProfiles = Field(SHIPPED, description="MQTT topics that are taken; replace the shipped ones")
    log: LogSettings = LogSettings()
    kafka: KafkaSettings = KafkaSettings()
    bridge: BridgeSettings = BridgeSettings()
    kinesis: KinesisSettings = KinesisSettings()
    kinesis_source: KinesisSourceSettings = KinesisSourceSettings()
    mqtt: MqttSettings = MqttSettings()
    listener: ListenerConfig = ListenerConfig()
    http: HttpSettings = HttpSettings()
    sparkplug: SparkplugSettings = SparkplugSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    ingest: IngestConfig = IngestConfig()
    rollup: RollupSettings = RollupSettings()
    detect: DetectSettings = DetectSettings()
    alert: AlertSettings = AlertSettings()
    notify: NotifySettings = NotifySettings()
    database: DatabaseSettings = DatabaseSettings()
    timescale: TimescaleSettings = TimescaleSettings()
    retention: RetentionSettings = RetentionSettings()
    archive: ArchiveSettings = ArchiveSettings()
    redis: RedisSettings = RedisSettings()
    channels: ChannelsSettings = ChannelsSettings()
    delivery: DeliverySettings = DeliverySettings()
    monitor: MonitorSettings = MonitorSettings()

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if self.bridge.into == "kinesis" and self.kinesis.stream is None:
            raise ValueError("bridge.into is kinesis: kinesis.stream must name the stream")
        formatted = [each.name for each in self.profiles if each.unpacker() is not None]
        if self.bridge.into == "kinesis" and formatted:
            raise ValueError(
                f"bridge.into is kinesis, whose records have no headers: profile {', '.join(formatted)} has a format "
                "or a sequence, which needs the log"
            )
        late = self.timescale.too_late(rollup__grace=self.rollup.grace, ingest__dedup_horizon=self.ingest.dedup_horizon)
        refreshed = {"timescale__refresh_window": self.timescale.refresh_window} if self.timescale.aggregates else {}
        late += self.retention.too_short(
            rollup__grace=self.rollup.grace, timescale__lateness=self.timescale.lateness, **refreshed
        )
        if late:
            raise ValueError("; ".join(late))
        return self
