"""The page: templates, style and script in one file, which may load nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.filters import do_mark_safe

from ..evaluation.text import figure, interval

HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """A template of this folder as a page with its style and script inside.

    Every value is escaped where it is placed; the only other content is the style and the script of this folder. The
    page's Content-Security-Policy names both by their SHA-256 and images as data, and forbids everything else: no
    request leaves the page, and text that were markup after all could not run.
    """
    style, script = _file("report.css"), _file("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _environment().get_template(template).render(
        style=do_mark_safe(style), script=do_mark_safe(script), policy=policy, **values
    )  # fmt: skip


def as_data(value: Any) -> str:
    """A value as JSON inside a script element that is not run: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return do_mark_safe(text)


def as_text(value: Any) -> str:
    """A value as JSON to be read; jinja's own `tojson` writes < and > as code points."""
    return json.dumps(value, ensure_ascii=False)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"figure": figure, "interval": interval, "data": as_data, "as_text": as_text}
    return environment


@cache
def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
