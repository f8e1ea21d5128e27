"""The part of Jinja that templates of notifications may use: it always ends, soon, and makes little.

Jinja's sandbox keeps templates from what is not theirs, and bounds neither time nor memory: two nested loops, or a text
that is doubled forty times, stop a process. Here every loop, macro and filter costs steps of a budget, texts have a
longest length, and what could get around that is not in the language. Steps are counted, not timed: a template that
is taken once is taken on every machine.
"""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import wraps
from math import inf
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateRuntimeError, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

#: Of one rendering, steps; a step is a node of a template, an item of a list, or `PER_STEP` characters.
STEPS = 200_000
PER_STEP = 100
#: Characters of a text on the way, and of what a template makes.
LONGEST_VALUE = 100_000
LONGEST_OUTPUT = 1_000_000
#: Items of a `range`.
LONGEST_RANGE = 1_000
#: Largest whole number.
LARGEST = 10**18

#: Without those that make much of little (center, indent, format), differ in a repeat (random), or mark as safe what
#: came from outside.
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "forceescape", "groupby",
    "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse",
    "select", "selectattr", "sort", "string", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode",
    "wordcount",
)  # fmt: skip
_LANGUAGE = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.With, nodes.Macro,
    nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Getattr,
    nodes.Getitem, nodes.Slice, nodes.Call, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.CondExpr,
    nodes.Concat, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div,
    nodes.FloorDiv, nodes.Mod,
)  # fmt: skip
#: What the rest is called in templates.
_OUTSIDE = {
    "FromImport": "from", "CallBlock": "call", "FilterBlock": "filter", "AssignBlock": "a block of set", "Pow": "**",
    "Scope": "autoescape", "ScopedEvalContextModifier": "autoescape", "NSRef": "a namespace",
}  # fmt: skip
#: Digits that `round` is asked for.
_MOST_DIGITS = 15

_steps: ContextVar[list[float]] = ContextVar("steps")


class TooMuch(TemplateRuntimeError):
    """A template loops for too long, or makes too much."""


class TemplateLanguage(ImmutableSandboxedEnvironment):
    """Compiles templates, and judges what they do while they are rendered.

    Args:
        autoescape: whether values are text in HTML.
    """

    intercepted_binops = frozenset({"+", "*", "%"})

    def __init__(self, *, autoescape: bool) -> None:
        super().__init__(autoescape=autoescape, undefined=StrictUndefined, extensions=(), finalize=_shown)
        self.filters = {name: _counted(FILTERS[name]) for name in _FILTERS}
        self.filters |= {"replace": _replace, "round": _round, "_each": _each, "_joined": _joined, "_spent": _spent}
        self.globals = {"range": _range}

    def compiled(self, source: str) -> Template:
        """A template for `rendered`.

        Raises:
            TemplateSyntaxError: it is none, or uses more of Jinja.
        """
        tree = self.parse(source)
        _check_language(tree)
        counting: nodes.Template = _Counting().visit(tree)
        return Template.from_code(self, self.compile(counting), self.make_globals(None))

    def call(self, context: Context, called: Any, /, *arguments: Any, **named: Any) -> Any:
        """What a macro or `say` makes."""
        _spend(1)
        return _bounded(super().call(context, called, *arguments, **named))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Numbers; also the sum of two texts."""
        if isinstance(left, str) and isinstance(right, str) and operator == "+":
            _check_length(len(left) + len(right))
        elif not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise TemplateRuntimeError(f"{operator} is for two numbers, and + for two texts, too")
        return _bounded(super().call_binop(context, operator, left, right))


def rendered(template: Template, values: Mapping[str, Any], steps: float = STEPS) -> str:
    """What a template of `TemplateLanguage` makes.

    Args:
        steps: that it may take; infinite for a template that is known to end.

    Raises:
        TooMuch: it loops for too long, or makes too much.
        TemplateError: it names what there is not; and whatever else an expression raises.
    """
    token = _steps.set([steps])
    try:
        pieces, length = [], 0
        for piece in template.generate(values):
            length += len(piece)
            if length > LONGEST_OUTPUT and steps < inf:
                raise TooMuch(f"makes more than {LONGEST_OUTPUT:,} characters")
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _steps.reset(token)


def _check_language(tree: nodes.Template) -> None:
    for node in tree.find_all(nodes.Node):
        if type(node) not in _LANGUAGE:
            name = type(node).__name__
            raise TemplateSyntaxError(f"{_OUTSIDE.get(name, name.lower())} cannot be used here", node.lineno or 1)
        if isinstance(node, nodes.For) and node.recursive:
            raise TemplateSyntaxError("a loop cannot be recursive", node.lineno)
        if isinstance(node, nodes.Call) and (node.dyn_args or node.dyn_kwargs or not _may_be_called(node.node)):
            raise TemplateSyntaxError("only say, range, loop.cycle and macros can be called", node.lineno)
        if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict) and getattr(node, "ctx", "load") == "load":
            parts = [each.value if isinstance(each, nodes.Pair) else each for each in node.items]
            if not all(isinstance(each, nodes.Const) for each in parts):
                raise TemplateSyntaxError("a list can only have constants in it", node.lineno)


def _may_be_called(called: nodes.Expr) -> bool:
    if isinstance(called, nodes.Getattr):
        return called.attr == "cycle" and isinstance(called.node, nodes.Name) and called.node.name == "loop"
    return isinstance(called, nodes.Name) and called.name != "loop"


class _Counting(NodeTransformer):
    """Puts in what counts: items of loops, calls of macros, and pieces of texts before they are one."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        cost = nodes.Const(_cost(node), lineno=node.lineno)
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_each", [cost], [], None, None, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        cost = nodes.Const(_cost(node), lineno=node.lineno)
        self.generic_visit(node)
        spent = nodes.Filter(cost, "_spent", [], [], None, None, lineno=node.lineno)
        node.body.insert(0, nodes.ExprStmt(spent, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        pieces = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(pieces, "_joined", [], [], None, None, lineno=node.lineno)


def _cost(node: nodes.Node) -> int:
    """Steps of what is in a loop or macro, each statement once."""
    return 1 + sum(
        1 + (len(each.data) // PER_STEP if isinstance(each, nodes.TemplateData) else 0)
        for each in node.find_all(nodes.Node)
    )


def _spend(steps: int) -> None:
    left = _steps.get()
    left[0] -= steps
    if left[0] < 0:
        raise TooMuch("takes too many steps: its loops, macros or filters do too much")


def _check_length(length: int) -> None:
    if length > LONGEST_VALUE:
        raise TooMuch(f"makes a text of more than {LONGEST_VALUE:,} characters")


def _bounded(value: Any) -> Any:
    """`value`, if it is not too long or large."""
    if isinstance(value, str):
        _check_length(len(value))
        _spend(len(value) // PER_STEP)
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise TooMuch("makes a number of more than 18 digits")
    elif isinstance(value, list | tuple):
        _spend(len(value))
    return value


@pass_context
def _shown(context: Context, value: Any) -> Any:
    """What of a value is put out. Not the insides of Python."""
    if not isinstance(value, str | int | float | Undefined):
        raise TemplateRuntimeError("puts out a list: take one of it, loop over it, or use join")
    return _bounded(value)


@pass_context
def _each(context: Context, value: Any, cost: int) -> Any:
    """What a loop goes over, paid for."""
    if isinstance(value, str):
        raise TemplateRuntimeError("loops over a text")
    if isinstance(value, Undefined):
        return value
    items = list(value)
    _spend(cost * len(items))
    return items


@pass_context
def _spent(context: Context, cost: int) -> None:
    _spend(cost)


@pass_context
def _joined(context: Context, pieces: list[Any]) -> str:
    """`~`."""
    shown = [_shown(context, each) for each in pieces]
    _check_length(sum(len(str(each)) for each in shown))
    return markup_join(shown) if context.eval_ctx.autoescape else str_join(shown)


@pass_context
def _replace(context: Context, text: str, old: str, new: str, count: int | None = None) -> str:
    found = str(text).count(str(old))
    _check_length(len(text) + (found if count is None else min(found, count)) * len(new))
    replaced: str = FILTERS["replace"](context.eval_ctx, text, old, new, count)
    return _bounded(replaced)  # type: ignore[no-any-return]


@pass_context
def _round(context: Context, value: float, precision: int = 0, method: str = "common") -> float:
    if abs(precision) > _MOST_DIGITS:
        raise TemplateRuntimeError(f"round is for at most {_MOST_DIGITS} digits")
    rounded: float = FILTERS["round"](value, precision, method)
    return rounded


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is paid for, and gives a list instead of what would be made later."""
    takes = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    @pass_context
    @wraps(function)
    def counted(context: Context, value: Any, *arguments: Any, **named: Any) -> Any:
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        _spend(1)
        if isinstance(value, list) and function is FILTERS["join"]:
            separator = str(arguments[0]) if arguments else str(named.get("d", ""))
            texts = sum(len(each) for each in value if isinstance(each, str))
            _check_length(texts + len(separator) * len(value))
        found = function(*([first[takes]] if takes in first else []), value, *arguments, **named)
        return _bounded(list(found) if isinstance(found, Iterator) else found)

    return counted


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > LONGEST_RANGE:
        raise TooMuch(f"has a range of more than {LONGEST_RANGE:,}")
    return found
