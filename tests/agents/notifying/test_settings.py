"""`[notify]`: what is taken, what is refused and with which words."""

from pathlib import Path

import pytest

from headrace.agents.notifying.caps import Cap
from headrace.cli.settings import Settings
from headrace.engine.config import load
from headrace.engine.errors import ConfigError


def read(folder: Path, text: str) -> Settings:
    (folder / "headrace.toml").write_text(text)
    return load(Settings, folder / "headrace.toml")


def wrong(folder: Path, text: str) -> list[str]:
    """The mistakes, without the name of the file."""
    with pytest.raises(ConfigError) as error:
        read(folder, text)
    return [each.removeprefix(f"{folder / 'headrace.toml'}: ") for each in error.value.mistakes]


def test_what_is_left_out_is_default(tmp_path: Path) -> None:
    """Severity by severity, and channel by channel."""
    notify = read(tmp_path, '[notify]\nmatrix = { info = [] }\ncaps = { sms = ["1/1d"], push = [] }').notify

    assert notify.matrix == {"info": (), "warning": ("email", "push"), "critical": ("email", "push", "sms")}
    assert notify.limits("sms") == (Cap(1, 86_400_000),)
    assert notify.limits("push") == ()
    assert notify.limits("email") == (Cap(1, 60_000),)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """With where it is, and the name that was probably meant."""
    assert wrong(
        tmp_path,
        """
[notify]
matrix = { criticl = ["email"] }
floor = { critical = ["mail"] }
tell = ["trigered"]
caps = { email = ["5 per minute", "0/1m"] }
repeat_acknowledged = "1s"
dashboard_url = "iot.example.com"
[[notify.escalations]]
name = "nights"
severities = ["grave"]
repeat = -1
[[notify.escalations.steps]]
after = "9001m"
team = "plant"
[[notify.escalations.steps]]
after = "1m"
team = "plant"
users = ["ada"]
[[notify.escalations]]
name = "none"
steps = []
""",
    ) == [
        "notify.matrix: criticl: there is none; did you mean 'critical'?; there are info, warning, critical",
        "notify.floor.critical.0: 'mail' is none of email, push, sms; did you mean 'email'?",
        "notify.tell.0: 'trigered' is none of triggered, acknowledged, resolved; did you mean 'triggered'?",
        "notify.caps: '5 per minute' is no cap: write how many (1 to 10,000) and in how long, as in 5/15m; "
        "'0/1m' is no cap: write how many (1 to 10,000) and in how long, as in 5/15m",
        "notify.escalations.0.severities.0: 'grave' is none of info, warning, critical",
        "notify.escalations.0.steps.0.after: '9001m' must be 1s to 9000m",
        "notify.escalations.0.steps.1: say whom the step tells: give one of team, users, and subscribers = true",
        "notify.escalations.0.repeat: Input should be greater than or equal to 0",
        "notify.escalations.1.steps: must have at least one",
        "notify.repeat_acknowledged: '1s' must be at least 1m",
        "notify.dashboard_url: String should match pattern '^https?://[^\\s\\x00-\\x1f\\x7f]+$'",
    ]


def test_a_floor_is_of_what_the_matrix_gives(tmp_path: Path) -> None:
    """Else it means nothing; the default one yields to a matrix without email."""
    assert wrong(tmp_path, '[notify]\nfloor = { info = ["sms"] }') == [
        "notify: floor.info: sms is not in matrix.info, so nobody has it to switch off"
    ]
    assert read(tmp_path, '[notify]\nmatrix = { critical = ["sms"] }').notify.matrix["critical"] == ("sms",)


def test_escalations_have_names_of_their_own(tmp_path: Path) -> None:
    """By which people know them."""
    one = '[[notify.escalations]]\nname = "nights"\n[[notify.escalations.steps]]\nafter = "5m"\nteam = "plant"\n'

    assert wrong(tmp_path, one * 2) == ["notify: escalations: there is more than one 'nights'"]
    assert read(tmp_path, one).notify.escalations[0].steps[0].after_ms == 300_000
