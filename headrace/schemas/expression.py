"""Expressions of derived metrics and rules: a small, safe part of Python's grammar, compiled once to run on columns."""

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.schemas.text import near

Floats = NDArray[np.float64]

#: Longer than any formula a person writes; keeps the parser's recursion shallow.
MAX_LENGTH = 1000


def _least(*columns: Any) -> Any:
    return reduce(np.minimum, columns)


def _greatest(*columns: Any) -> Any:
    return reduce(np.maximum, columns)


def _absent(columns: Sequence[Any]) -> Any:
    return reduce(np.logical_or, map(np.isnan, columns))


def _all(*columns: Any) -> Any:
    return np.where(_absent(columns), np.nan, reduce(np.logical_and, columns))


def _any(*columns: Any) -> Any:
    return np.where(_absent(columns), np.nan, reduce(np.logical_or, columns))


def _not(column: Any) -> Any:
    return np.where(np.isnan(column), np.nan, np.logical_not(column))


#: What the words run: 1 or 0 by what is not 0, NaN where an operand is. No field in an expression has the name of a
#: keyword.
_WORDS: dict[str, Callable[..., Any]] = {"and": _all, "or": _any, "not": _not}
#: Function: (what it runs, least number of arguments, greatest number).
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (np.abs, 1, 1),
    "exp": (np.exp, 1, 1),
    "log": (np.log, 1, 1),
    "max": (_greatest, 2, 10),
    "min": (_least, 2, 10),
    "sqrt": (np.sqrt, 1, 1),
}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Mod, ast.UAdd, ast.USub)
#: What others are called that Python has, and expressions have not.
_AS_WRITTEN: dict[type[ast.AST], str] = {
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in", ast.Invert: "~", ast.BitAnd: "&",
    ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>", ast.FloorDiv: "//", ast.MatMult: "@",
}  # fmt: skip
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)


class Expression:
    """A formula over columns.

    Numbers, names of fields, `+ - * / % **`, comparisons (1 for true, 0 for false), `and`, `or`, `not` (for which all
    but 0 is true), and the functions abs, exp, log (natural), max, min, sqrt.

    Args:
        text: the formula.
        names: fields that it may use.
        constants: other names, with what they stand for.
        factor: the result is multiplied by it.
        aliases: names under which fields come and which expressions do not know, with the field; to hint at it.
    Raises:
        ValueError: the formula is not of this form; the message says where.

    >>> Expression("temperature * 9 / 5 + 32", ["temperature"]).evaluate({"temperature": np.array([20.0, np.nan])})
    array([68., nan])
    """

    def __init__(
        self,
        text: str,
        names: Sequence[str],
        constants: Mapping[str, float] | None = None,
        factor: float = 1.0,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        # A TOML text may span lines; an expression may not.
        self.text = text = " ".join(text.split())
        if len(text) > MAX_LENGTH:
            raise ValueError(f"the expression is longer than {MAX_LENGTH} characters")
        try:
            tree = ast.parse(text, mode="eval")
            checker = _Checker(text, names, constants or {}, aliases or {})
            tree = checker.visit(tree)
            if factor != 1:
                tree.body = ast.BinOp(tree.body, ast.Mult(), ast.Constant(factor))
            ast.fix_missing_locations(tree)
            self.inputs: tuple[str, ...] = tuple(sorted(checker.used))
            self._code = compile(tree, "<expression>", "eval")
        except SyntaxError as error:
            raise ValueError(f"{text!r} is not an expression: {error.msg}") from error
        except (RecursionError, MemoryError) as error:
            raise ValueError("the expression is nested too deeply") from error
        if not self.inputs:
            raise ValueError(f"{text!r} uses no field")
        try:
            self.evaluate({name: np.ones(1) for name in self.inputs})
        except ArithmeticError as error:
            raise ValueError(f"{text!r} cannot be computed: {error}") from error

    def evaluate(self, columns: Mapping[str, Floats]) -> Floats:
        """The value per row, (n,) float64; NaN where an input is absent (NaN) or the result is not finite.

        Args:
            columns: at least those in `inputs`, each (n,) float64.
        """
        given: dict[str, Any] = {name: columns[name] for name in self.inputs}
        functions: dict[str, Any] = _WORDS | {name: function for name, (function, _, _) in _FUNCTIONS.items()}
        with np.errstate(all="ignore"):
            result = eval(self._code, {"__builtins__": {}}, functions | given)
        values = np.array(result, dtype=np.float64)
        for column in given.values():
            values[np.isnan(column)] = np.nan
        values[~np.isfinite(values)] = np.nan
        return values


class _Checker(ast.NodeTransformer):
    """Refuses every node that is not listed, and makes all numbers floats, so that no power takes for ever.

    What has no field in it becomes one number; without that it would not be seen that it is none, as in `a / 0`.
    """

    def __init__(
        self, text: str, names: Sequence[str], constants: Mapping[str, float], aliases: Mapping[str, str]
    ) -> None:
        self._text = text
        self._names = names
        self._constants = constants
        self._aliases = aliases
        self.used: set[str] = set()

    def generic_visit(self, node: ast.AST) -> ast.AST:
        allowed = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Load, *_OPERATORS, *_COMPARISONS)
        if not isinstance(node, allowed):
            part = ast.get_source_segment(self._text, node) if isinstance(node, ast.expr) else None
            what = part or _AS_WRITTEN.get(type(node), type(node).__name__)
            raise ValueError(f"{what} is not allowed in an expression")
        return super().generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) not in (int, float):
            raise ValueError(f"{node.value!r} is not a number")
        try:
            number = float(node.value)  # type: ignore[arg-type]
        except OverflowError:
            number = np.inf
        if not np.isfinite(number):
            raise ValueError("a number in the expression is too large")
        return ast.copy_location(ast.Constant(number), node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self._constants:
            return ast.copy_location(ast.Constant(self._constants[node.id]), node)
        if node.id not in self._names:
            meant = self._aliases.get(node.id)
            hint = f"; did you mean {meant!r}?" if meant else near(node.id, [*self._names, *self._constants])
            raise ValueError(f"{node.id!r} is not a numeric field of the device type{hint}")
        self.used.add(node.id)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if len(node.ops) != 1:
            raise ValueError("comparisons cannot be chained: write a < b and b < c")
        return super().generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        return self._word("and" if isinstance(node.op, ast.And) else "or", node.values)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Not):
            return self._word("not", [node.operand])
        part = ast.unparse(node)
        return self._one_number(self.generic_visit(node), [node.operand], part)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        part = ast.unparse(node)
        made = self.generic_visit(node)
        zero = isinstance(node.right, ast.Constant) and node.right.value == 0
        if zero and isinstance(node.op, ast.Div | ast.Mod):
            raise ValueError(f"{part} cannot be computed: it divides by 0")
        return self._one_number(made, [node.left, node.right], part)

    @staticmethod
    def _one_number(node: ast.AST, operands: Sequence[ast.expr], part: str) -> ast.AST:
        """What a node without fields comes to, whose operands have been visited; any other as it is."""
        if not (isinstance(node, ast.expr) and all(isinstance(each, ast.Constant) for each in operands)):
            return node
        functions = {name: function for name, (function, _, _) in _FUNCTIONS.items()}
        code = compile(ast.fix_missing_locations(ast.Expression(node)), "<expression>", "eval")
        try:
            with np.errstate(all="ignore"):
                number = eval(code, {"__builtins__": {}}, functions)
        except ArithmeticError as error:
            raise ValueError(f"{part} cannot be computed: {error}") from error
        # A broken power of a negative number is complex.
        if isinstance(number, complex) or not np.isfinite(number):
            raise ValueError(f"{part} cannot be computed: it is no finite number")
        return ast.copy_location(ast.Constant(float(number)), node)

    def _word(self, word: str, operands: list[ast.expr]) -> ast.AST:
        return ast.Call(ast.Name(word, ast.Load()), [self.visit(operand) for operand in operands], [])

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name not in _FUNCTIONS:
            raise ValueError(f"the functions are {', '.join(_FUNCTIONS)}, not {ast.unparse(node.func)}")
        _, least, greatest = _FUNCTIONS[name]
        if node.keywords or not least <= len(node.args) <= greatest:
            raise ValueError(f"{name} takes {least if least == greatest else f'{least} to {greatest}'} argument(s)")
        part = ast.unparse(node)
        node.args = [self.visit(argument) for argument in node.args]
        return self._one_number(node, node.args, part)
