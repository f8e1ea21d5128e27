"""The tiers of tests/conftest.py, tried on small suites of their own."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py").read_text()
SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite of its own under the same conftest, on a laptop."""
    pytester.makeconftest(CONFTEST)
    pytester.makeini(f"[pytest]\npythonpath = {SCRIPTS}\nmarkers = timescaledb:\n  data:\n")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("HEADRACE_TEST_TIMESCALEDB_URL", raising=False)
    return pytester


def test_missing_server_skips_on_a_laptop(suite: pytest.Pytester) -> None:
    """`require` skips and says what is missing and how to get it."""
    suite.makepyfile("def test_it(require): require(None, 'mosquitto', 'apt-get install mosquitto')")

    result = suite.runpytest_subprocess("-rs")

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*mosquitto is missing; apt-get install mosquitto*"])
    assert result.ret == pytest.ExitCode.OK


def test_missing_server_fails_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CI=true the same test fails."""
    monkeypatch.setenv("CI", "true")
    suite.makepyfile("def test_it(require): require(None, 'mosquitto', 'apt-get install mosquitto')")

    result = suite.runpytest_subprocess()

    result.assert_outcomes(failed=1)


def test_any_skip_fails_the_run_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CI=true a skip by any other way turns a passing run into a failed one that names it."""
    monkeypatch.setenv("CI", "true")
    suite.makepyfile("import pytest\ndef test_good(): pass\ndef test_lazy(): pytest.skip('later')")

    result = suite.runpytest_subprocess()

    result.stdout.fnmatch_lines(["*skipped with CI=true*", "*test_lazy"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_what_cannot_run_here_is_listed_by_name(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests marked `timescaledb` or `data` are deselected, not skipped, and named, in CI too."""
    monkeypatch.setenv("CI", "true")
    suite.makepyfile(
        "import pytest\n"
        "def test_plain(): pass\n"
        "@pytest.mark.timescaledb\ndef test_hypertable(): assert False\n"
        "@pytest.mark.data\ndef test_beijing(): assert False\n"
    )

    result = suite.runpytest_subprocess()

    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.fnmatch_lines(["timescaledb (*):", "*::test_hypertable"])
    assert result.ret == pytest.ExitCode.OK
