"""The unit of an expression, inferred from the units of what it uses."""

import ast
from collections.abc import Mapping
from fractions import Fraction
from math import log10

from headrace.schemas.units import PLAIN, Unit

#: Of what has a unit; no formula of physics has a greater one, and exact numbers grow with it.
MAX_EXPONENT = 12


def unit_of(expression: str, units: Mapping[str, Unit], *, bare_numbers: bool = False) -> Unit:
    """The unit of the result.

    Sums, comparisons, min and max need the same unit on both sides; log, exp and exponents need plain numbers; `and`,
    `or` and `not` take anything. Numbers in the text are plain. Nothing is converted: what is in different units of one
    kind is refused.

    Args:
        expression: one that `headrace.schemas.expression.Expression` has accepted.
        units: of every name in it.
        bare_numbers: numbers in the text are in the unit of what they are compared with or added to, as in the
            expression of a rule, which has no constants.
    Raises:
        ValueError: the units do not fit; with the place, and what to do.
    """
    tree = ast.parse(" ".join(expression.split()), mode="eval")
    return _Inference(units, bare_numbers).infer(tree.body)


class _Inference:
    def __init__(self, units: Mapping[str, Unit], bare_numbers: bool) -> None:
        self._units = units
        self._bare_numbers = bare_numbers

    def infer(self, node: ast.expr) -> Unit:  # noqa: PLR0911
        match node:
            case ast.Name(id=name):
                return self._units[name]
            case ast.BoolOp(values=values):
                for value in values:
                    self.infer(value)
                return PLAIN
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.infer(operand)
                return PLAIN
            case ast.UnaryOp(operand=operand):
                return self.infer(operand)
            case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as operator, right=right):
                return _product(self.infer(left), operator, self.infer(right))
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return self._power(left, right)
            case ast.BinOp(left=left, right=right):
                return self._same([left, right])
            case ast.Compare(left=left, comparators=[right]):
                self._same([left, right])
                return PLAIN
            case ast.Call(func=ast.Name(id="sqrt"), args=[of]):
                unit = self.infer(of)
                return unit.power(Fraction(1, 2), f"({unit.text})**0.5" if unit != PLAIN else "1")
            case ast.Call(func=ast.Name(id="log" | "exp"), args=[of]):
                self._need_plain(of)
                return PLAIN
            case ast.Call(args=arguments):
                return self._same(arguments)
        return PLAIN

    def _power(self, base: ast.expr, exponent: ast.expr) -> Unit:
        unit = self.infer(base)
        self._need_plain(exponent)
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

    def _same(self, nodes: list[ast.expr]) -> Unit:
        if self._bare_numbers:
            nodes = [node for node in nodes if _names(node)]
            if not nodes:
                return PLAIN
        first = self.infer(nodes[0])
        for node in nodes[1:]:
            other = self.infer(node)
            ratio = other.ratio(first)
            if ratio != 1:
                what = f"{ast.unparse(nodes[0])} is {_shown(first)} and {ast.unparse(node)} {_shown(other)}"
                raise ValueError(what + self._remedy(first, other, ratio))
        return first

    def _remedy(self, first: Unit, other: Unit, ratio: float | None) -> str:
        differ = "" if ratio is None else f", which differ by a factor of {ratio:g}"
        if self._bare_numbers:
            return f"{differ}: {_DERIVE}"
        if ratio is not None:
            multiply = f": multiply the latter by a constant, {ratio:g} {first.text}/{other.text}"
            return differ + (multiply if other.text.isalnum() else "")
        if PLAIN not in (first, other):
            return ""
        with_unit = first if other == PLAIN else other
        return f'; a number with a unit is a constant, as in constants = {{ limit = "5 {with_unit.text}" }}'

    def _need_plain(self, node: ast.expr) -> None:
        unit = self.infer(node)
        if unit.ratio(PLAIN) != 1:
            constant = f'divide by a constant, as in constants = {{ whole = "100 {unit.text}" }}'
            raise ValueError(
                f"{ast.unparse(node)} must be a plain number and is {_shown(unit)}; "
                f"{_DERIVE if self._bare_numbers else constant}"
            )


_DERIVE = "make it a derived metric of the device type, where constants have units"


def _names(node: ast.expr) -> bool:
    functions = {id(each.func) for each in ast.walk(node) if isinstance(each, ast.Call)}
    return any(isinstance(each, ast.Name) and id(each) not in functions for each in ast.walk(node))


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


def _shown(unit: Unit) -> str:
    return "a plain number" if unit == PLAIN else f"in {unit.text}"
