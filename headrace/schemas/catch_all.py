"""The device type of messages that have none, for those who keep them (`[ingest] unknown_types = "keep"`)."""

from headrace.schemas.device_type import DeviceType, FieldSpec, TimeSpec

#: Field with the name that a message was labelled with.
REPORTED_TYPE = "reported_type"

#: Everything that is sent is kept in `extra`. A device type of the operator's with this name replaces it.
CATCH_ALL = DeviceType(
    name="unknown",
    description="Messages of device types that nobody described.",
    time=TimeSpec(fields=("timestamp", "ts", "time"), missing="append"),
    fields={REPORTED_TYPE: FieldSpec(type="text", unit="")},
)
