"""What `devices.presence` carries: that a device's connection began or ended. Record key: the device id."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Will(BaseModel):
    """The message that the device left for the case that it goes without goodbye.

    Args:
        topic: it wanted it published to.
        payload: as text; None if it is not UTF-8.
        payload_base64: the bytes, if it is not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    payload: str | None = None
    payload_base64: str | None = None


class Presence(BaseModel):
    """One change.

    Args:
        device_id: whose name the connection was authenticated for; of Sparkplug the node or device.
        client_id: of MQTT; who connects under it again takes the connection over. Of Sparkplug the edge node.
        state: `disconnected` belongs to the last `connected` of the same `connection_id`; `will`: the device's will is
            due, after its disconnect.
        time: ms since 1970 UTC.
        connection_id: one per connection, or life of a Sparkplug node or device.
        reason: of a disconnect: `goodbye`, `taken over`, `keep alive timeout`, `connection lost`, `server shutting
            down`, or what the device did wrong; `death certificate`, `device death certificate`.
        will: with state `will`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: str
    client_id: str
    state: Literal["connected", "disconnected", "will"]
    time: int
    connection_id: str
    reason: str | None = None
    will: Will | None = None
