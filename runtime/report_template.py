"""HTML and CSS of search pages (`psarm.runtime.report` and, with more of its own, `psarm.runtime.gallery.page`).

Fields in braces are filled with `str.format`.
"""

STYLE = """
:root { color-scheme: light dark; --back: #f4f5f7; --card: #ffffff; --ink: #1c2330; --soft: #68717f; --line: #dfe3e8;
        --good: #2f9e44; --query: #d9730d; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171c; --card: #1e232b; --ink: #e8ebef; --soft: #98a2b0; --line: #323945;
          --good: #51cf66; --query: #ffa94d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
header { padding: 20px 24px 4px; }
h1 { margin: 0; font-size: 20px; }
h2 { margin: 0 0 10px; font-size: 12px; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); }
main { display: grid; grid-template-columns: minmax(240px, 340px) 1fr; gap: 24px; padding: 16px 24px;
       align-items: start; }
aside, article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px; }
aside { position: sticky; top: 16px; border-top: 4px solid var(--query); }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(380px, 1fr)); gap: 16px; }
.views { display: flex; gap: 8px; height: 210px; }
img { display: block; border-radius: 6px; background: #0002; object-fit: contain; }
.views .frame { flex: 1; min-width: 0; }
.views .crop { width: 88px; }
aside .crop { max-width: 100%; max-height: 300px; margin: 0 auto 10px; }
aside .frame { width: 100%; }
.caption { display: grid; grid-template-columns: auto auto 1fr; gap: 4px 10px; align-items: center; margin-top: 10px; }
.rank { min-width: 26px; padding: 0 6px; border-radius: 6px; background: var(--good); color: var(--card);
        font-weight: 700; text-align: center; }
.similarity { font-weight: 600; font-variant-numeric: tabular-nums; }
.bar { height: 6px; border-radius: 3px; background: var(--line); overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--good); }
.name { grid-column: 1 / -1; color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.detail { grid-column: 1 / -1; color: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.nobody { color: var(--soft); }
footer { padding: 8px 24px 28px; color: var(--soft); font-size: 13px; }
@media (max-width: 760px) { main { grid-template-columns: 1fr; } aside { position: static; }
  .hits { grid-template-columns: 1fr; } }
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
<header><h1>{heading}</h1>
{facts}</header>
<main>
<aside>
<h2>Query</h2>
{queries}
</aside>
<section>
<h2>Most similar first</h2>
<div class="hits">
{cards}
</div>
</section>
</main>
<footer>{notes}</footer>
</body>
</html>
"""

QUERY = """{crop}
{frame}
<div class="caption"><span class="name">{name}</span></div>"""

CARD = """<article>
<div class="views">{crop}{frame}</div>
<div class="caption">
<span class="rank">{rank}</span>
<span class="similarity" title="similarity">{similarity}</span>
<span class="bar"><span style="width:{percent}%"></span></span>
<span class="name">{name}</span>
<span class="detail">box {box} · detection score {score}</span>
</div>
</article>"""

NOBODY = """<p class="nobody">Nobody was found in the pictures searched.</p>"""
