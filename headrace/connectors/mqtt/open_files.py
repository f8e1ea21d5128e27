"""How many connections the system lets this process have open."""

import resource


def allow_open_files(wanted: int) -> int:
    """Raise this process's own limit of open files to `wanted`, as far as the system lets it; the limit then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return max(soft, wanted)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        return soft  # macOS says that there is no limit, and has one
    return most
