"""Marks what comes late: that it does, and what has happened since."""

import re
from html import escape

from headrace.connectors.notifications.channel import Content

#: Seconds after the decision from which a message says that it is late.
LATE_AFTER = 120.0
#: Longest short form, characters: one SMS.
MOST_SHORT = 160


def marked_late(content: Content, seconds: float, *, over: bool) -> Content:
    """`content` with how late it is in every form.

    Args:
        seconds: since it was decided to send it.
        over: whether its alert has been resolved meanwhile; a message that says so follows.
    """
    delay = _words(seconds)
    told = f"This message is {delay} late: it could not be sent earlier."
    if over:
        told += " The alert has been resolved meanwhile; a message about that follows."
    mark = f"[{delay} late{', resolved' if over else ''}] "
    html = content.html
    if html is not None:
        note = f"<p><strong>{escape(told)}</strong></p>"
        html, found = re.subn(r"(<body\b[^>]*>)", lambda match: match[1] + note, html, count=1)
        html = html if found else note + html
    return content._replace(
        title=mark + content.title,
        text=f"{told}\n\n{content.text}",
        html=html,
        short=(mark + content.short)[:MOST_SHORT],
    )


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
