"""What every transport promises; each transport's test module subclasses this and gives a `log` fixture."""

import pytest

from headrace.engine.log import Log
from tests.contract.catch_up_promises import CatchUpPromises
from tests.contract.change_promises import ChangePromises
from tests.contract.commit_promises import CommitPromises
from tests.contract.group_promises import GroupPromises
from tests.contract.log_access import Names
from tests.contract.record_promises import RecordPromises


class LogContract(RecordPromises, ChangePromises, CommitPromises, CatchUpPromises, GroupPromises):
    """All promises."""

    @pytest.fixture
    async def names(self, log: Log) -> Names:
        """Topics of the test's own, made."""
        names = Names.new()
        await log.create_topics(names.specs())
        return names
