"""Expressions of derived metrics."""

import numpy as np
import pytest

from headrace.schemas.expression import MAX_LENGTH, Expression

NAMES = ["a", "b"]
COLUMNS = {"a": np.array([1.0, 4.0, np.nan, -1.0]), "b": np.array([2.0, 0.0, 3.0, 1.0])}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a + 2 * b", [5, 4, None, 1]),
        ("-a ** 2 + a % 2", [0, -16, None, 0]),
        ("a / b", [0.5, None, None, -1]),
        ("sqrt(a)", [1, 2, None, None]),
        ("log(exp(b))", [2, 0, 3, 1]),
        ("max(a, b, 3) - min(a, b)", [2, 4, None, 4]),
        ("abs(a) > b", [0, 1, None, 0]),
        ("(a != b) * (b >= 1)", [1, 0, None, 1]),
        ("a * 1e308 * 10", [None, None, None, None]),
        ("a *\n  b", [2, 0, None, -1]),
        ("a > 0 and b > 0", [1, 0, None, 0]),
        ("a > 1 or b > 1", [1, 1, None, 0]),
        ("not b", [0, 1, 0, 0]),
        ("not a > 1 and (b or a < 0)", [1, 0, None, 1]),
        ("sqrt(a) < 2 or b", [1, 0, None, 1]),
        ("sqrt(a) and b", [1, 0, None, None]),
        ("not sqrt(a)", [0, 0, None, None]),
        ("a * (2 + 2 ** -1) - max(1, abs(-3))", [-0.5, 7, None, -5.5]),
        ("a and 2", [1, 1, None, 1]),
    ],
)
def test_expressions_are_computed_on_columns(text: str, result: list[float | None]) -> None:
    """Absent inputs and results that are no finite number give an absent value."""
    values = Expression(text, NAMES).evaluate(COLUMNS).tolist()

    assert [None if value != value else value for value in values] == pytest.approx(result)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a +", "is not an expression"),
        ("", "is not an expression"),
        ("1 + 2", "uses no field"),
        ("c + a", "'c' is not a numeric field"),
        ("a.real", "a.real is not allowed"),
        ("a[0]", "a[0] is not allowed"),
        ("a if b else 1", "a if b else 1 is not allowed"),
        ("[a for a in b]", "is not allowed"),
        ("lambda: a", "is not allowed"),
        ("a and b.real", "b.real is not allowed"),
        ("a and", "is not an expression"),
        ("~a", "is not allowed"),
        ("a & b", "& is not allowed"),
        ("0 < a < 1", "comparisons cannot be chained: write a < b and b < c"),
        ("__import__('os')", "the functions are abs, exp, log, max, min, sqrt, not __import__"),
        ("a.mean()", "the functions are"),
        ("max(*a)", "takes 2 to 10"),
        ("log(a, 2)", "log takes 1 argument(s)"),
        ("max(a)", "max takes 2 to 10 argument(s)"),
        ("sqrt(x=a)", "sqrt takes 1 argument(s)"),
        ("a + 'x'", "'x' is not a number"),
        ("a + True", "True is not a number"),
        ("a + 1j", "1j is not a number"),
        ("a ** 9 ** 9 ** 9 ** 9", "cannot be computed"),
        ("a * (1 / 0)", "cannot be computed"),
        ("a / 0 > 2", "a / 0 cannot be computed: it divides by 0"),
        ("a % (2 - 2)", "a % (2 - 2) cannot be computed: it divides by 0"),
        ("a > 1e999", "too large"),
        ("a > -1e308 * 10", "it is no finite number"),
        ("a > log(-1)", "log(-1) cannot be computed: it is no finite number"),
        ("a > (-1) ** 0.5", "it is no finite number"),
        ("a is b", "is is not allowed in an expression"),
        ("a not in b", "not in is not allowed in an expression"),
        ("a + " + "9" * 400, "too large"),
        ("(" * 400 + "a" + ")" * 400, "nested"),
        ("a" + " + a" * MAX_LENGTH, "longer than"),
    ],
)
def test_mistakes_are_found_when_it_is_compiled(text: str, why: str) -> None:
    """Anything but arithmetic, comparisons and the listed functions is refused, and says what."""
    with pytest.raises(ValueError, match=r"\w") as raised:
        Expression(text, NAMES)

    assert why in str(raised.value)
