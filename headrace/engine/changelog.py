"""How changelogs are called."""


def changelog_topic(group: str, table: str) -> str:
    """Name of the compacted topic that `table` of `group` is kept in."""
    return f"{group}-{table}-changelog"
