"""The Java command that runs Kafka's programs."""

from pathlib import Path

from local_kafka.jars import class_archive, class_path, find_tool, keep

#: A small broker. With only the first compiler it starts with 40 % less work and, under 200,000 messages/s, needs less
#: processor time than with both for the first 40 s and no more than a fifth more after that.
OPTIONS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_LOG = {
    "defaultLogLevel": "info",
    "showDateTime": "true",
    "dateTimeFormat": "yyyy-MM-dd HH:mm:ss.SSS",
    "logFile": "System.out",
}


class Java:
    """Commands for the Kafka of one version.

    Args:
        version: of Kafka.
        recording: where a broker that ends cleanly may leave its class-data archive, if none is kept yet.
    Raises:
        MissingTool: Java, or the jars and Maven, are missing.
    """

    def __init__(self, version: str, recording: Path | None) -> None:
        self._java = find_tool("java")
        self._class_path = class_path(version)
        self._archive = class_archive(self._java, version, self._class_path)
        self._recording = None if self._archive.exists() else recording

    @property
    def records(self) -> bool:
        """Whether a broker leaves an archive when it ends cleanly."""
        return self._recording is not None

    def keep_archive(self) -> None:
        """Keep what was recorded: later starts take half the time."""
        if self._recording and self._recording.exists():
            keep(self._recording, self._archive)

    def broker_command(self, properties: Path) -> list[str]:
        """Command of a broker. It logs to standard output."""
        record = [f"-XX:ArchiveClassesAtExit={self._recording}"] if self._recording else []
        return self._command(*record, "kafka.Kafka", str(properties))

    def storage_command(self, *arguments: str) -> list[str]:
        """Command of the program that formats data folders."""
        return self._command("kafka.tools.StorageTool", *arguments)

    def _command(self, *end: str) -> list[str]:
        archive = [f"-XX:SharedArchiveFile={self._archive}"] if self._archive.exists() else []
        logging = [f"-Dorg.slf4j.simpleLogger.{key}={value}" for key, value in _LOG.items()]
        return [self._java, *OPTIONS, *archive, *logging, "-cp", self._class_path, *end]
