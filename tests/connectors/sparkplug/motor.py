"""What a log says of the motor of the plant's press."""

import asyncio

import orjson

from headrace.engine.embedded.log import EmbeddedLog
from tests.contract.source_contract import arrived

#: Seconds that anything may take.
PATIENCE = 60.0


class Motor:
    """Looks into `log`, which a subclass has."""

    log: EmbeddedLog

    async def rpm(self) -> list[int]:
        """What the motor was read to say, in order of the log."""
        found = await arrived(self.log)
        return [orjson.loads(value)["rpm"] for device, value in found if device == "plant/press/motor"]

    async def until_read(self, *rpm: int) -> None:
        """Wait until the motor has said all these."""
        async with asyncio.timeout(PATIENCE):
            while set(await self.rpm()) != set(rpm):
                await asyncio.sleep(0.01)
