"""What people see of alerts."""

import pytest

from headrace.cli.alert_view import alert_rows, show_alert
from headrace.schemas.alert import Alert

ALERT = Alert(
    alertId="1dbf6549-7b3c", revision=1, ruleId="down", ruleName="Gateway is down", deviceId="gw", deviceType="unknown",
    severity="critical", status="triggered", condition="offline for 30 s", metric="connection", triggeredAt=1_000,
    groupKey="down:gw", metadata={"reason": "goodbye", "offlineSince": 1_748_779_200_000, "explains": True},
)  # fmt: skip


def test_an_alert_tells_times_as_times(capsys: pytest.CaptureFixture[str]) -> None:
    """Since when a device is away is nothing to be computed from milliseconds."""
    show_alert(ALERT, [])

    assert "offlineSince  2025-06-01T12:00:00.000Z" in capsys.readouterr().out


def test_an_alert_says_who_was_told_by_what(capsys: pytest.CaptureFixture[str]) -> None:
    """When people were told last, and by which channels; nothing before that."""
    show_alert(ALERT, [])
    before = capsys.readouterr().out
    show_alert(
        ALERT.model_copy(update={"notificationsSent": ("email", "push"), "lastNotifiedAt": 1_748_779_200_000}), []
    )

    assert "notified" not in before
    assert "notified      2025-06-01T12:00:00.000Z by email, push\n" in capsys.readouterr().out


def test_explained_devices_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    """However many alerts each has; the alerts are counted."""
    explained = [ALERT.model_copy(update={"deviceId": name}) for name in ("b", "a", "b", "a")]

    show_alert(ALERT, explained)

    assert "explains      4 alerts: a, b\n" in capsys.readouterr().out


def test_long_ids_do_not_make_every_row_wide() -> None:
    """Their beginnings are shown, whatever they consist of."""
    row = next(alert_rows([ALERT.model_copy(update={"deviceId": "d" * 256, "ruleId": "\x1b" * 200})]))

    assert row[4] == f"{'d' * 40}… (256 characters)"
    assert row[5].startswith("\\x1b\\x1b")
    assert max(map(len, row)) < 64
