"""Faust's conductor: hands a fetch to every agent that reads its topic."""

from typing import cast

from faust.transport.conductor import Conductor

from headrace.engine.log import Fetched
from headrace.engine.runtime.agent import BatchAgent
from headrace.engine.runtime.delivery import Delivery


class BatchConductor(Conductor):
    """Agents on the same topic share one fetch and, through `Shared`, one decode."""

    def deliver(self, fetched: Fetched) -> Delivery:
        """Give `fetched` to its agents; the returned delivery knows when all are done."""
        agents = [
            cast(BatchAgent, agent)
            for agent in self.app.agents.values()
            if fetched.target.topic in agent.get_topic_names()
        ]
        delivery = Delivery(fetched, [agent.name for agent in agents])
        for agent in agents:
            agent.deliver(delivery)
        return delivery
