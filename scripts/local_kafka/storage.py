"""Formats the data folders of a new cluster."""

import re
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence

from local_kafka.broker import Broker, StartError
from local_kafka.java import Java


def format_folders(brokers: Sequence[Broker], java: Java, options: Sequence[str]) -> None:
    """Format the first broker's folder with Kafka's own tool, and the others like it: each run of the tool takes 0.5 s.

    Raises:
        StartError: the tool refused, for example a setting.
    """
    first, *others = brokers
    # A dash in front would look like an option.
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
    arguments = ["format", "--cluster-id", cluster_id, "--config", str(first.properties), *options]
    done = subprocess.run(java.storage_command(*arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartError(f"formatting the data folder failed:\n{(done.stdout + done.stderr)[-3000:]}")
    for broker in others:
        shutil.copytree(first.data, broker.data)
        identity = broker.data / "meta.properties"
        lines = re.sub(r"^directory\.id=.*\n", "", identity.read_text(), flags=re.MULTILINE)
        identity.write_text(re.sub(r"^node\.id=.*$", f"node.id={broker.node}", lines, flags=re.MULTILINE))
