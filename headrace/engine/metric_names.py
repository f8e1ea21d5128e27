"""Every metric that headrace exports: name, kind, labels and meaning. The table of docs/metrics.md is made from it.

After a change: `python -m headrace.engine.metric_names` writes the table anew.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

CounterName = Literal[
    "headrace_agent_records_total",
    "headrace_archive_failures_total",
    "headrace_archive_rows_total",
    "headrace_batches_total",
    "headrace_cache_keys_total",
    "headrace_cache_unreadable_total",
    "headrace_collector_failures_total",
    "headrace_commit_failures_total",
    "headrace_commits_total",
    "headrace_dead_letters_total",
    "headrace_device_events_total",
    "headrace_fetch_rebuilds_total",
    "headrace_http_answers_total",
    "headrace_http_refused_total",
    "headrace_intake_records_total",
    "headrace_kinesis_failures_total",
    "headrace_kinesis_oversized_total",
    "headrace_kinesis_records_total",
    "headrace_kinesis_retries_total",
    "headrace_listener_refused_total",
    "headrace_loop_blocked_seconds_total",
    "headrace_loop_blocked_total",
    "headrace_notifications_total",
    "headrace_quarantined_total",
    "headrace_rebalances_total",
    "headrace_records_read_total",
    "headrace_records_written_total",
    "headrace_replica_refused_total",
    "headrace_restore_records_total",
    "headrace_retries_total",
    "headrace_sequence_numbers_total",
    "headrace_series_refused_total",
    "headrace_sink_lost_offsets_total",
    "headrace_sink_records_total",
    "headrace_sink_retries_total",
    "headrace_source_appended_total",
    "headrace_source_lost_ranges_total",
    "headrace_source_probes_lost_total",
    "headrace_source_reconnects_total",
    "headrace_source_repeated_total",
    "headrace_source_retries_total",
    "headrace_source_run_failures_total",
    "headrace_source_runs_total",
    "headrace_sparkplug_gaps_total",
    "headrace_sparkplug_missing_total",
    "headrace_sparkplug_rebirths_total",
    "headrace_unknown_fields_total",
    "headrace_unknown_topics_total",
    "headrace_unknown_types_total",
    "headrace_unpack_refused_total",
]
GaugeName = Literal[
    "headrace_archive_finished_timestamp_seconds",
    "headrace_build_info",
    "headrace_cache_verified_timestamp_seconds",
    "headrace_collected_timestamp_seconds",
    "headrace_committed_offset",
    "headrace_healthy",
    "headrace_http_connections",
    "headrace_lag_records",
    "headrace_ledger_messages",
    "headrace_listener_connections",
    "headrace_notification_servers_down",
    "headrace_notifications_waiting",
    "headrace_partitions_assigned",
    "headrace_partitions_stopped",
    "headrace_ready",
    "headrace_replica_entries",
    "headrace_replica_lag_records",
    "headrace_sink_state",
    "headrace_source_behind_seconds",
    "headrace_source_connected",
    "headrace_source_run_messages",
    "headrace_source_run_timestamp_seconds",
    "headrace_source_shards",
    "headrace_source_waiting_bytes",
    "headrace_sparkplug_waiting",
    "headrace_standby_entries",
    "headrace_standby_lag_records",
    "headrace_watermark_delay_seconds",
]
HistogramName = Literal[
    "headrace_agent_batch_seconds",
    "headrace_commit_seconds",
    "headrace_intake_append_seconds",
    "headrace_kinesis_append_seconds",
    "headrace_notification_attempt_seconds",
    "headrace_notification_delivery_seconds",
    "headrace_restore_seconds",
    "headrace_sink_write_seconds",
]
MetricName = CounterName | GaugeName | HistogramName

Kind = Literal["counter", "gauge", "histogram"]
Label = Literal[
    "agent",
    "channel",
    "collector",
    "device_type",
    "field",
    "finding",
    "group",
    "http_reason",
    "http_status",
    "loop",
    "metric",
    "mqtt_reason",
    "outcome",
    "partition",
    "profile",
    "reason",
    "sink",
    "source",
    "state",
    "status",
    "term",
    "topic",
    "version",
]


class Metric(NamedTuple):
    """What a metric is.

    Args:
        kind: counters only grow; gauges go up and down; histograms count into `BUCKETS`.
        meaning: one sentence, with the unit.
        labels: in the order in which they are shown.
    """

    kind: Kind
    meaning: str
    labels: tuple[Label, ...] = ()


#: Upper bounds of the buckets of every histogram, seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

#: What the labels mean, and every value of those that have few.
LABELS: Mapping[Label, tuple[str, tuple[str, ...]]] = {
    "agent": ("name of an agent, or of the sink that refused a record", ()),
    "channel": ("of notifications", ()),
    "collector": ("what reads gauges at intervals", ("lag", "ledger")),
    "device_type": ("name of a device type, as the message was labelled; empty if it was not", ()),
    "field": ("name of a field in a payload; `...` for all after the first 1,000", ()),
    "finding": (
        "of a verification: `equal` to the database; `missing`, `stale`, `wrong`: see docs/guides/cache.md; `ahead` of "
        "the database, which has yet to store it",
        ("equal", "missing", "stale", "wrong", "ahead"),
    ),
    "group": ("consumer group", ()),
    "http_reason": (
        "what was wrong: the end of the problem type of the answer",
        ("not-json", "invalid-message", "forbidden"),
    ),
    "http_status": ("status code of an answer", ()),
    "loop": ("event loop: of the agents, or of the Kafka client", ("agents", "kafka")),
    "metric": ("name of a metric", (*get_args(CounterName), *get_args(GaugeName), *get_args(HistogramName))),
    "mqtt_reason": ("reason of MQTT 5 for a refusal, as in `not_authorized`", ()),
    "outcome": (
        "of a sequence number: `received`; `lost`: left out; `late`: came after greater ones; `repeat`: there before; "
        "`reset`: the device began anew; `unusable`: what stands there is no such number",
        ("received", "lost", "late", "repeat", "reset", "unusable"),
    ),
    "partition": ("number of a partition", ()),
    "profile": ("name of a topic profile", ()),
    "reason": (
        "`bad_record`: it can never be processed; `agent_error`: its agent raised on it; `refused`: by the other side; "
        "`failed`: anything else; `unregistered`, `retired`: by the device registry",
        ("bad_record", "agent_error", "refused", "failed", "unregistered", "retired"),
    ),
    "sink": ("name of a sink", ()),
    "source": ("name of a source", ()),
    "state": ("of a sink", ("connecting", "running", "retrying", "probing", "standby")),
    "status": (
        "of a message",
        ("queued", "held", "dropped", "sending", "sent", "delivered", "failed", "unknown", "dead"),
    ),
    "term": ("of the ledger", ("accepted", "stored", "duplicate", "conflict", "dead_lettered", "in_flight")),
    "topic": ("name of a topic", ()),
    "version": ("of headrace", ()),
}

METRICS: Mapping[MetricName, Metric] = {
    # What goes in
    "headrace_intake_records_total": Metric("counter", "Messages appended to `telemetry.raw` by sources here."),
    "headrace_unknown_topics_total": Metric(
        "counter", "Of these, messages on topics that no topic profile takes; ingest dead-letters them."
    ),
    "headrace_unpack_refused_total": Metric(
        "counter", "Messages that the format of their profile could not unpack; ingest dead-letters them.", ("profile",)
    ),
    "headrace_device_events_total": Metric(
        "counter", "Messages that are no readings, appended to `devices.events`.", ("profile",)
    ),
    "headrace_intake_append_seconds": Metric("histogram", "Seconds until an append was durable."),
    "headrace_kinesis_records_total": Metric(
        "counter", "Messages that Kinesis confirmed, where the bridge leads there."
    ),
    "headrace_kinesis_append_seconds": Metric("histogram", "Seconds until all messages of an append were confirmed."),
    "headrace_kinesis_retries_total": Metric(
        "counter", "Records sent again; `refused`: Kinesis did not take them, `failed`: no answer.", ("reason",)
    ),
    "headrace_kinesis_failures_total": Metric("counter", "Requests to Kinesis without a usable answer."),
    "headrace_kinesis_oversized_total": Metric(
        "counter", "Payloads larger than a record may be; a notice with their beginning was put instead."
    ),
    # Sources
    "headrace_source_appended_total": Metric("counter", "Messages of a source that the log took.", ("source",)),
    "headrace_source_repeated_total": Metric(
        "counter", "Messages that the broker sent again though they were in the log; dropped.", ("source",)
    ),
    "headrace_sparkplug_gaps_total": Metric(
        "counter", "Stretches of messages of an edge node that did not come within the reorder timeout."
    ),
    "headrace_sparkplug_missing_total": Metric("counter", "Messages in these."),
    "headrace_sparkplug_rebirths_total": Metric("counter", "Requests to edge nodes for their birth certificates."),
    "headrace_sparkplug_waiting": Metric(
        "gauge", "Sparkplug messages that wait for those before them, or for a birth certificate."
    ),
    "headrace_source_waiting_bytes": Metric(
        "gauge", "Payload bytes that waited for the log at the last append.", ("source",)
    ),
    "headrace_source_connected": Metric("gauge", "1 while the source is connected, else 0.", ("source",)),
    "headrace_source_runs_total": Metric(
        "counter", "Runs of a source with a schedule that drained its session.", ("source",)
    ),
    "headrace_source_run_failures_total": Metric(
        "counter", "Runs of a source with a schedule that failed, every try counted.", ("source",)
    ),
    "headrace_source_run_messages": Metric("gauge", "Messages that its last run took.", ("source",)),
    "headrace_source_run_timestamp_seconds": Metric(
        "gauge", "When its last run that drained the session ended, seconds since 1970.", ("source",)
    ),
    "headrace_source_reconnects_total": Metric("counter", "Connections that the source lost.", ("source",)),
    "headrace_source_retries_total": Metric(
        "counter", "Requests of a source that failed or were refused, and were repeated.", ("source",)
    ),
    "headrace_source_lost_ranges_total": Metric(
        "counter", "Stretches of a stream that were gone before the source had read them.", ("source",)
    ),
    "headrace_source_behind_seconds": Metric(
        "gauge", "How far the newest record of a stream is ahead of what is read, of its slowest shard.", ("source",)
    ),
    "headrace_source_shards": Metric("gauge", "Shards that the source reads.", ("source",)),
    "headrace_source_probes_lost_total": Metric(
        "counter", "Connections of these that it gave up: a message to itself did not come back.", ("source",)
    ),
    "headrace_http_connections": Metric("gauge", "Clients that are connected to HTTP ingest."),
    "headrace_http_answers_total": Metric("counter", "Answers of HTTP ingest.", ("http_status",)),
    "headrace_http_refused_total": Metric(
        "counter", "Messages that HTTP ingest refused before the append; they are in no ledger.", ("http_reason",)
    ),
    "headrace_listener_connections": Metric("gauge", "Clients that are connected to the MQTT listener."),
    "headrace_listener_refused_total": Metric(
        "counter", "Connections and packets that the MQTT listener refused.", ("mqtt_reason",)
    ),
    # Agents
    "headrace_records_read_total": Metric(
        "counter", "Records given to agents, once however many agents read them.", ("topic", "partition")
    ),
    "headrace_batches_total": Metric("counter", "Batches given to agents, likewise.", ("topic", "partition")),
    "headrace_agent_records_total": Metric("counter", "Records that an agent is done with.", ("agent",)),
    "headrace_agent_batch_seconds": Metric(
        "histogram", "Seconds from giving an agent a batch until it asked for the next, or raised.", ("agent",)
    ),
    "headrace_retries_total": Metric("counter", "Batches offered again to an agent that raised.", ("agent",)),
    "headrace_dead_letters_total": Metric("counter", "Records sent to `telemetry.dlq`.", ("agent", "reason")),
    "headrace_quarantined_total": Metric(
        "counter", "Messages of these that ingest refused because of their device's registration.", ("reason",)
    ),
    "headrace_unknown_fields_total": Metric(
        "counter", "Messages with a field that their device type does not know.", ("device_type", "field")
    ),
    "headrace_unknown_types_total": Metric("counter", "Messages of a device type that is not known.", ("device_type",)),
    "headrace_sequence_numbers_total": Metric(
        "counter", "Sequence numbers of devices, by what became of them.", ("outcome",)
    ),
    "headrace_watermark_delay_seconds": Metric(
        "gauge",
        "Seconds from the agent's watermark (event time) to the append time of the newest record it is done with.",
        ("agent", "partition"),
    ),
    # Commits
    "headrace_commits_total": Metric("counter", "Transactions that became visible.", ("group",)),
    "headrace_commit_seconds": Metric("histogram", "Seconds that a transaction took.", ("group",)),
    "headrace_commit_failures_total": Metric(
        "counter",
        "Transactions without effect; `refused`: the group had moved on.",
        ("group", "reason"),
    ),
    "headrace_records_written_total": Metric("counter", "Records appended by transactions.", ("topic",)),
    # Partitions
    "headrace_partitions_assigned": Metric("gauge", "Partitions that this worker has.", ("group",)),
    "headrace_partitions_stopped": Metric(
        "gauge", "Partitions here that do not advance until the worker is started again.", ("group",)
    ),
    "headrace_rebalances_total": Metric("counter", "Assignments of partitions to this worker.", ("group",)),
    "headrace_restore_seconds": Metric(
        "histogram", "Seconds from an assignment until the tables of its partitions were restored.", ("group",)
    ),
    "headrace_restore_records_total": Metric(
        "counter",
        "Records read from a compacted topic for somebody who waits; not what a standby has read before.",
        ("topic",),
    ),
    "headrace_standby_entries": Metric(
        "gauge", "Entries in the copy that this worker keeps of a changelog of others.", ("topic", "partition")
    ),
    "headrace_standby_lag_records": Metric(
        "gauge", "Offsets from what is in that copy to the end of the changelog.", ("topic", "partition")
    ),
    "headrace_fetch_rebuilds_total": Metric(
        "counter", "Times that fetching was rebuilt because it stood still while there was lag."
    ),
    "headrace_lag_records": Metric(
        "gauge", "Offsets between the committed position and the end of the log.", ("group", "topic", "partition")
    ),
    "headrace_committed_offset": Metric("gauge", "Committed position.", ("group", "topic", "partition")),
    # Replicated tables
    "headrace_replica_entries": Metric("gauge", "Keys that a replicated table holds here.", ("topic",)),
    "headrace_replica_lag_records": Metric(
        "gauge", "Changes of its topic that a replicated table here has still to read.", ("topic",)
    ),
    "headrace_replica_refused_total": Metric(
        "counter", "Changes of its topic that a replicated table here could not decode.", ("topic",)
    ),
    # Sinks
    "headrace_sink_state": Metric("gauge", "1 for the state that the sink is in, 0 for the others.", ("sink", "state")),
    "headrace_sink_lost_offsets_total": Metric(
        "counter", "Offsets that the log had dropped before the sink stored them.", ("sink", "topic")
    ),
    "headrace_sink_records_total": Metric("counter", "Records that the sink stored.", ("sink",)),
    "headrace_sink_write_seconds": Metric("histogram", "Seconds that a write to the sink took.", ("sink",)),
    "headrace_sink_retries_total": Metric("counter", "Writes and connections that failed.", ("sink",)),
    # Notifications
    "headrace_notifications_total": Metric(
        "counter", "States that messages to contacts have come to.", ("channel", "status")
    ),
    "headrace_notifications_waiting": Metric("gauge", "Messages that wait to be sent.", ("channel",)),
    "headrace_notification_servers_down": Metric(
        "gauge", "Servers of the channel that take no messages; a channel of a provider has one.", ("channel",)
    ),
    "headrace_notification_attempt_seconds": Metric("histogram", "Seconds that an attempt took.", ("channel",)),
    "headrace_notification_delivery_seconds": Metric(
        "histogram", "Seconds from the decision until the receiver had taken the message.", ("channel",)
    ),
    # The archive
    "headrace_archive_rows_total": Metric("counter", "Rows moved from the database to the archive."),
    "headrace_archive_failures_total": Metric(
        "counter", "Days that could not be archived, and runs that could not be made; nothing of them was deleted."
    ),
    "headrace_archive_finished_timestamp_seconds": Metric(
        "gauge", "When the last run without a failure ended, seconds since 1970 UTC."
    ),
    # The cache
    "headrace_cache_unreadable_total": Metric("counter", "Records that the cache left out as it could not read them."),
    "headrace_cache_keys_total": Metric(
        "counter", "Entries that verifications compared with the database.", ("finding",)
    ),
    "headrace_cache_verified_timestamp_seconds": Metric(
        "gauge", "When a verification of the cache last went through to its end, seconds since 1970 UTC."
    ),
    # The ledger
    "headrace_ledger_messages": Metric(
        "gauge",
        "Messages since the log began, by what became of them; at rest `accepted` is the others together.",
        ("term",),
    ),
    # The process
    "headrace_healthy": Metric("gauge", "1 while `/health` answers 200, else 0."),
    "headrace_ready": Metric("gauge", "1 while `/ready` answers 200, else 0."),
    "headrace_loop_blocked_total": Metric(
        "counter", "Times that an event loop ran nothing else for half a second or longer.", ("loop",)
    ),
    "headrace_loop_blocked_seconds_total": Metric("counter", "Seconds of these.", ("loop",)),
    "headrace_collected_timestamp_seconds": Metric(
        "gauge", "When a collector last succeeded, seconds since 1970 UTC; what it reads is as old.", ("collector",)
    ),
    "headrace_collector_failures_total": Metric(
        "counter", "Times that a collector failed or took too long; its gauges keep their values.", ("collector",)
    ),
    "headrace_series_refused_total": Metric(
        "counter", "Values not kept under their own labels because the metric has too many of them.", ("metric",)
    ),
    "headrace_build_info": Metric("gauge", "1, with the version of headrace.", ("version",)),
}

_BEGIN, _END = "<!-- begin: made from headrace/engine/metric_names.py -->", "<!-- end -->"


def with_tables(page: str) -> str:
    """`page` of documentation with the tables between its two marks made anew."""
    before, rest = page.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{_tables()}{_END}{after}"


def _tables() -> str:
    rows = ["| Metric | Kind | Labels | |", "|---|---|---|---|"]
    for name, metric in METRICS.items():
        rows.append(f"| `{name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.meaning} |")
    rows += ["", "| Label | | Values |", "|---|---|---|"]
    for label, (meaning, values) in LABELS.items():
        shown = "" if label == "metric" else ", ".join(f"`{value}`" for value in values)
        rows.append(f"| `{label}` | {meaning} | {shown} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    path = Path("docs/metrics.md")
    path.write_text(with_tables(path.read_text()))
