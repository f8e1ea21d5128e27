"""What the bytes mean: readings, device types, topics, wire codecs."""

from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Readings, decode_readings, encode_readings
from headrace.schemas.rule import AlertRule

__all__ = ["AlertRule", "DeviceType", "Readings", "decode_readings", "encode_readings"]
