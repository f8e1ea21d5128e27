"""The unit of an expression, inferred from the units of what it uses."""

import ast
from collections.abc import Mapping
from fractions import Fraction
from math import log10

from headrace.schemas.units import PLAIN, Unit

#: Of what has a unit; no formula of physics has a greater one, and exact numbers grow with it.
MAX_EXPONENT = 12


def unit_of(expression: str, units: Mapping[str, Unit]) -> Unit:
    """The unit of the result.

    Sums, comparisons, min and max need the same unit on both sides; log, exp and exponents need plain numbers. Numbers
    in the text are plain. Nothing is converted: what is in different units of one kind is refused.

    Args:
        expression: one that `headrace.schemas.expression.Expression` has accepted.
        units: of every name in it.
    Raises:
        ValueError: the units do not fit; with the place, and what to do.
    """
    return _infer(ast.parse(" ".join(expression.split()), mode="eval").body, units)


def _infer(node: ast.expr, units: Mapping[str, Unit]) -> Unit:  # noqa: PLR0911
    match node:
        case ast.Name(id=name):
            return units[name]
        case ast.UnaryOp(operand=operand):
            return _infer(operand, units)
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as operator, right=right):
            return _product(_infer(left, units), operator, _infer(right, units))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(left, right, units)
        case ast.BinOp(left=left, right=right):
            return _same([left, right], units)
        case ast.Compare(left=left, comparators=[right]):
            _same([left, right], units)
            return PLAIN
        case ast.Call(func=ast.Name(id="sqrt"), args=[of]):
            unit = _infer(of, units)
            return unit.power(Fraction(1, 2), f"({unit.text})**0.5" if unit != PLAIN else "1")
        case ast.Call(func=ast.Name(id="log" | "exp"), args=[of]):
            _need_plain(of, _infer(of, units))
            return PLAIN
        case ast.Call(args=arguments):
            return _same(arguments, units)
    return PLAIN


def _product(left: Unit, operator: ast.operator, right: Unit) -> Unit:
    divides = isinstance(operator, ast.Div)
    sign, exponent = ("/", -1) if divides else ("*", 1)
    if right.text == PLAIN.text:
        text = left.text
    elif left.text == PLAIN.text and not divides:
        text = right.text
    else:
        text = f"{left.text}{sign}{right.text}"
    unit = left.times(right, text, exponent)
    return PLAIN if unit.ratio(PLAIN) == 1 else unit


def _power(base: ast.expr, exponent: ast.expr, units: Mapping[str, Unit]) -> Unit:
    unit = _infer(base, units)
    _need_plain(exponent, _infer(exponent, units))
    if unit == PLAIN:
        return PLAIN
    try:
        number = float(ast.literal_eval(exponent))
    except ValueError:
        raise ValueError(
            f"{ast.unparse(base)} is in {unit.text}: its exponent must be a number, not {ast.unparse(exponent)}"
        ) from None
    # A scale beyond a double's range could only come of powers of powers.
    if not abs(number) <= MAX_EXPONENT or abs(log10(unit.scale)) * abs(number) > 300:
        raise ValueError(f"{ast.unparse(base)} is in {unit.text}: its exponent can be {MAX_EXPONENT} at most")
    power = unit.power(Fraction(number).limit_denominator(1000), f"({unit.text})**{number:g}")
    return PLAIN if power.ratio(PLAIN) == 1 else power


def _same(nodes: list[ast.expr], units: Mapping[str, Unit]) -> Unit:
    first = _infer(nodes[0], units)
    for node in nodes[1:]:
        other = _infer(node, units)
        ratio = other.ratio(first)
        if ratio == 1:
            continue
        what = f"{ast.unparse(nodes[0])} is {_shown(first)} and {ast.unparse(node)} {_shown(other)}"
        if ratio is not None:
            differ = f"{what}, which differ by a factor of {ratio:g}"
            if other.text.isalnum():
                differ += f": multiply the latter by a constant, {ratio:g} {first.text}/{other.text}"
            raise ValueError(differ)
        if PLAIN in (first, other):
            with_unit = first if other == PLAIN else other
            what += f'; a number with a unit is a constant, as in constants = {{ limit = "5 {with_unit.text}" }}'
        raise ValueError(what)
    return first


def _need_plain(node: ast.expr, unit: Unit) -> None:
    if unit.ratio(PLAIN) != 1:
        raise ValueError(
            f"{ast.unparse(node)} must be a plain number and is {_shown(unit)}; divide by a constant, "
            f'as in constants = {{ whole = "100 {unit.text}" }}'
        )


def _shown(unit: Unit) -> str:
    return "a plain number" if unit == PLAIN else f"in {unit.text}"
