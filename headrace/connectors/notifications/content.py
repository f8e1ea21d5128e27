"""Notifications in words: title, text, HTML and one SMS, made of sandboxed templates."""

import textwrap
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any, get_args

import structlog
from jinja2 import Template, TemplateError, TemplateRuntimeError

from headrace.connectors.notifications.channel import Content
from headrace.connectors.notifications.example_notifications import examples
from headrace.connectors.notifications.gsm import one_sms, septets
from headrace.connectors.notifications.languages import languages, nearest, words
from headrace.connectors.notifications.settings import ChannelsSettings
from headrace.connectors.notifications.template_language import TemplateLanguage, rendered
from headrace.connectors.notifications.views import Links, one_line, template_values
from headrace.engine.errors import ConfigError
from headrace.schemas.notification import Kind, Notification
from headrace.schemas.text import near

log = structlog.get_logger(__name__)

_SHIPPED = Path(__file__).with_name("templates")
FORMS = ("title", "txt", "html", "short")
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Characters of a title; of a text, and of a line of it.
LONGEST_TITLE = 200
LONGEST_TEXT = 100_000
WIDTH = 78
#: Bytes of one template.
LONGEST_TEMPLATE = 100_000


class Renderer:
    """Makes the content of notifications; templates of the operator's own go before the shipped ones.

    What comes from devices and people is only ever a value in a template: it is never read as one, is escaped in HTML,
    and stays on its line. A template of one's own that fails at sending is replaced by the shipped one, and a warning
    says so: no alert is lost for a text.

    Args:
        templates: folder with templates named `KIND.FORM`, or `FORM` for every kind; in folders of languages too. See
            docs/guides/notification-channels.md.
        links: of the dashboard.
    Raises:
        ConfigError: a template cannot be read, is none, or fails on an example; every mistake.
    """

    def __init__(self, templates: Path | None = None, links: Links = Links()) -> None:  # noqa: B008
        self._links = links
        plain, html = TemplateLanguage(autoescape=False), TemplateLanguage(autoescape=True)
        self._environments = {form: html if form == "html" else plain for form in FORMS}
        self._shipped = {form: self._compiled(form, (_SHIPPED / form).read_text("utf-8")) for form in FORMS}
        self._own: dict[str, Template] = {}
        if templates is not None:
            self._load(templates)

    def render(self, notification: Notification) -> Content:
        """The notification for its reader; never fails."""
        values = self._values(notification)
        title = one_line(self._made("title", notification, values), LONGEST_TITLE)
        values["title"] = title
        text = _wrapped(self._made("txt", notification, values))[:LONGEST_TEXT]
        html = self._made("html", notification, values)
        short = one_sms(self._made("short", notification, values))
        link = str(values["link"]) or None
        if link is not None and septets(f"{short} {link}") is not None and (septets(f"{short} {link}") or 0) <= 160:
            short = f"{short} {link}"
        return Content(title, text, html, short, link)

    def _values(self, notification: Notification) -> dict[str, Any]:
        texts = words(nearest(notification.reader.language))

        def say(key: str, **values: object) -> str:
            if key not in texts:
                raise TemplateRuntimeError(f"there is no text {key!r}{near(str(key), texts)}")
            return texts[key].format(**values)

        return {**template_values(notification, self._links), "say": say}

    def _made(self, form: str, notification: Notification, values: Mapping[str, Any]) -> str:
        own = self._of(form, notification)
        if own is not None:
            try:
                return rendered(own, values)
            except Exception as error:  # templates may raise whatever they can think of
                log.warning("notification_template_failed", template=own.name, reason=_reason(error))
        return rendered(self._shipped[form], values, inf)

    def _of(self, form: str, notification: Notification) -> Template | None:
        language = nearest(notification.reader.language)
        return next((self._own[name] for name in _names(form, notification.kind, language) if name in self._own), None)

    def _compiled(self, name: str, source: str) -> Template:
        return self._environments[name.rpartition("/")[2].rpartition(".")[2]].compiled(source)

    def _load(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"[channels] templates: {folder} is no folder")
        known = {name for form in FORMS for kind in KINDS for each in languages() for name in _names(form, kind, each)}
        wrong = []
        for path in sorted(each for each in folder.rglob("*") if each.is_file() and not each.name.startswith(".")):
            name = path.relative_to(folder).as_posix()
            try:
                if name not in known:
                    raise ValueError(
                        f"not a template's name: FORM or KIND.FORM, forms are {', '.join(FORMS)}, kinds "
                        f"{', '.join(KINDS)}; for one language in a folder {' or '.join(sorted(languages()))}"
                    )
                self._own[name] = self._compiled(name, _source(path))
                self._own[name].name = name
            except (TemplateError, ValueError, OSError, RecursionError) as error:
                wrong.append(f"[channels] templates: {path}: {_reason(error)}")
        wrong += self._failing(folder)
        if wrong:
            raise ConfigError(*wrong)

    def _failing(self, folder: Path) -> Iterable[str]:
        """Mistakes that only show when a template is used: names that there are not, above all."""
        found: dict[str, str] = {}
        for notification in examples():
            values = self._values(notification) | {"title": "title"}
            for form in FORMS:
                for name in _names(form, notification.kind, nearest(notification.reader.language)):
                    if name in self._own and name not in found:
                        try:
                            rendered(self._own[name], values)
                        except Exception as error:  # as in _made
                            found[name] = f"[channels] templates: {folder / name}: {_reason(error)}"
        return found.values()


def make_renderer(settings: ChannelsSettings) -> Renderer:
    """A renderer as `[channels]` says.

    Raises:
        ConfigError: see `Renderer`.
    """
    return Renderer(settings.templates, Links(settings.dashboard_url, settings.acknowledge_url))


def _names(form: str, kind: str, language: str) -> list[str]:
    """Names of templates for this, the most special first."""
    return [f"{language}/{kind}.{form}", f"{language}/{form}", f"{kind}.{form}", form]


def _source(path: Path) -> str:
    if path.stat().st_size > LONGEST_TEMPLATE:
        raise ValueError(f"larger than {LONGEST_TEMPLATE:,} bytes")
    return path.read_text("utf-8")


def _reason(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    # The text of an error of Jinja is its message, and once more the line.
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    return (f"line {line}: " if line else "") + said


def _wrapped(text: str) -> str:
    lines = (
        textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
        if len(line) > WIDTH
        else [line]
        for line in text.splitlines()
    )
    return "\n".join(each.rstrip() for line in lines for each in line).strip("\n") + "\n"
