"""The parts of a page. Texts are escaped here; what is called `content` is HTML already."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from psarm import __version__
from psarm.benchmarks.page import template


def whole_page(
    title: str,
    subtitle: str,
    warning: str,
    sections: Sequence[tuple[str, str, str]],
    date: str,
    published: bool = True,
) -> str:
    """A page.

    `sections`: id, title and content of each; `warning`: why published figures do not compare, or empty; `published`:
    whether there are such figures on the page.
    """
    note = f'<p class="warning" role="note"><b>Not comparable.</b> {html.escape(warning)}</p>' if warning else ""
    return template.PAGE.format(
        style=template.STYLE,
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        lead=template.PUBLISHED if published else template.MEASURED,
        warning=note,
        links=" ".join(f'<a href="#{key}">{html.escape(name)}</a>' for key, name, _ in sections),
        sections="\n".join(
            template.SECTION.format(id=key, title=html.escape(name), content=content) for key, name, content in sections
        ),
        version=html.escape(__version__),
        date=html.escape(date),
    )


def table(label: str, head: Sequence[Sequence[str]], body: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table whose first column names the rows."""
    heads = "\n".join(table_row("th", [html.escape(cell) for cell in cells]) for cells in head)
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{"".join(f"<td>{html.escape(cell)}</td>" for cell in cells)}</tr>'
        for name, cells in body
    )
    return template.TABLE.format(label=html.escape(label), head=heads, body=f"<tbody>\n{rows}\n</tbody>")


def table_row(kind: str, contents: Sequence[str]) -> str:
    """A row of `th` or `td`."""
    scope = ' scope="col"' if kind == "th" else ""
    return "<tr>" + "".join(f"<{kind}{scope}>{content}</{kind}>" for content in contents) + "</tr>"


def plots(figures: Sequence[tuple[str, str]], numbers: str) -> str:
    """Plots side by side, each an SVG and its caption, with their numbers (a content) folded below."""
    drawn = "\n".join(template.FIGURE.format(svg=svg, caption=html.escape(caption)) for svg, caption in figures)
    return f'<div class="plots">\n{drawn}\n</div>\n{template.DETAILS.format(summary="The numbers", content=numbers)}'


def facts_list(entries: Mapping[str, str]) -> str:
    """Headings with a text each."""
    listed = "\n".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(text)}</dd>" for key, text in entries.items())
    return f'<dl class="facts">\n{listed}\n</dl>'
