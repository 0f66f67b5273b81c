"""HTML and CSS of benchmark reports; fields in braces are filled with `str.format`."""

STYLE = """
:root { color-scheme: light dark; --back: #f4f5f7; --card: #ffffff; --ink: #1c2330; --soft: #5c6573; --line: #dfe3e8;
  --good: #1f7a33; --bad: #b42318; --published: #7a4d00; --published-back: #fdf3dc; --query: #b45309;
  --series0: #0b62a4; --series1: #c2410c; --series2: #15803d; --series3: #8b2fc9; --series4: #a16207;
  --series5: #be185d; --series6: #0e7490; --series7: #4b5563; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171c; --card: #1e232b; --ink: #e8ebef; --soft: #a3adba; --line: #39414d;
    --good: #5fd37c; --bad: #ff8a7a; --published: #f2c76a; --published-back: #2f2817; --query: #ffa94d;
    --series0: #6cb6ff; --series1: #ff9a5c; --series2: #5fd38a; --series3: #c99bff; --series4: #f2c14e;
    --series5: #ff8fb8; --series6: #5fd0e0; --series7: #c0c6cf; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 24px; }
h1 { margin: 0 0 4px; font-size: 24px; line-height: 1.25; }
h2 { margin: 0 0 6px; font-size: 18px; }
h3 { margin: 0; font-size: 15px; }
p { margin: 0 0 10px; max-width: 78ch; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 12px 0 0; }
a { color: var(--series0); }
.soft, figcaption, footer { color: var(--soft); }
.warning { border-left: 4px solid var(--bad); background: var(--card); padding: 10px 14px; margin: 14px 0 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px; margin: 18px 0; }
.scroll { overflow-x: auto; margin-bottom: 10px; }
.scroll:focus-visible { outline: 2px solid var(--series0); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody th { text-align: left; white-space: normal; min-width: 170px; }
thead th { font-size: 13px; color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }
thead th[colspan] { border-bottom: 0; padding-bottom: 0; text-align: center; }
thead tr:first-child th:first-child { text-align: left; }
.published td, .published th { background: var(--published-back); color: var(--published); font-weight: 400; }
.published td { text-align: center; }
.tag { display: inline-block; font-size: 12px; line-height: 1.4; border: 1px dashed currentColor; border-radius: 4px;
  padding: 0 5px; }
.note { display: block; font-size: 12px; color: var(--soft); font-weight: 400; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 18px; }
figure { margin: 0; }
.plots svg { display: block; width: 100%; max-width: 580px; height: auto; }
.plots svg * { stroke-linejoin: round; stroke-linecap: butt; }
.plots svg text { font-family: system-ui, sans-serif !important; }
figcaption { font-size: 13px; margin-top: 6px; }
summary { cursor: pointer; margin: 12px 0 6px; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 16px; }
.example { border: 1px solid var(--line); border-radius: 10px; padding: 12px; min-width: 0; }
.row { display: flex; gap: 12px; align-items: flex-start; }
.hits { flex: 1; min-width: 0; display: grid; gap: 10px; }
.pair { display: flex; gap: 10px; }
.crop { width: 84px; margin: 0; font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }
.crop img { display: block; width: 84px; height: 150px; object-fit: contain; border-radius: 6px; background: #8882;
  border: 4px solid var(--query); }
.right img { border-color: var(--good); }
.wrong img { border: 4px dashed var(--bad); }
.right b { color: var(--good); }
.wrong b { color: var(--bad); }
.facts { overflow-wrap: anywhere; }
.facts dt { font-weight: 600; }
.facts dd { margin: 0 0 8px; color: var(--soft); }
code { font-size: 13px; overflow-wrap: anywhere; }
footer { padding-bottom: 32px; font-size: 13px; }
@media (max-width: 600px) { header, main, footer { padding-left: 10px; padding-right: 10px; }
  section { padding: 12px; } th, td { padding: 5px 7px; } }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="soft">{subtitle}</p>
<p>{lead}</p>
{warning}
<nav aria-label="Parts of this page">{links}</nav>
</header>
<main>
{sections}
</main>
<footer>Made by psarm {version}, {date}.</footer>
</body>
</html>
"""

PUBLISHED = (
    '<span class="tag" style="color: var(--published)">published</span> marks figures quoted from print; everything '
    "else was measured by psarm, when and on what is said at the end."
)
MEASURED = "Everything was measured by psarm, when and on what is said at the end."

SECTION = """<section id="{id}" aria-labelledby="{id}-title">
<h2 id="{id}-title">{title}</h2>
{content}
</section>"""

TABLE = """<div class="scroll" tabindex="0" role="region" aria-label="{label}">
<table>
<thead>
{head}
</thead>
{body}
</table>
</div>"""

FIGURE = """<figure>
{svg}
<figcaption>{caption}</figcaption>
</figure>"""

DETAILS = """<details>
<summary>{summary}</summary>
{content}
</details>"""

EXAMPLE = """<article class="example">
<h3>Query {number} <span class="note">{note}</span></h3>
<div class="row">
{query}
<div class="hits">
{hits}
</div>
</div>
</article>"""

CROP = """<figure class="crop {kind}"><img alt="{alt}" src="data:image/jpeg;base64,{data}">{text}</figure>"""
