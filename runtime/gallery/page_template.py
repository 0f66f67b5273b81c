"""What the gallery's page (`psarm.runtime.gallery.page`) has that other search pages do not; fields as there."""

STYLE = """
header p { margin: 4px 0 0; color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.hits { grid-template-columns: repeat(auto-fill, minmax(min(560px, 100%), 1fr)); }
.hits .views { height: clamp(210px, 30vw, 380px); }
.views .none { flex: 1; display: grid; place-items: center; padding: 12px; border: 1px dashed var(--line);
               border-radius: 6px; color: var(--soft); font-size: 13px; text-align: center; }
.views .none.crop { flex: none; padding: 4px; }
aside .caption { margin: 6px 0 18px; }
aside .caption:last-child { margin-bottom: 0; }
.when { grid-column: 1 / -1; font-weight: 600; font-variant-numeric: tabular-nums; }
.camera { padding: 0 8px; border: 1px solid var(--line); border-radius: 999px; color: var(--soft); font-size: 12px;
          font-weight: 400; }
.play { grid-column: 1 / -1; display: flex; gap: 10px; align-items: baseline; min-width: 0; font-size: 13px; }
.play a { color: var(--good); font-weight: 600; text-decoration: none; white-space: nowrap; }
.play a:hover { text-decoration: underline; }
.play code { min-width: 0; color: var(--soft); font-size: 12px; overflow-wrap: anywhere; }
article.unlikely { border: 2px dashed var(--soft); }
.unlikely .rank, .unlikely .bar span { background: var(--soft); }
.unlikely .when { font-weight: 400; }
.unlikely .play a { color: var(--soft); }
.verdict { grid-column: 1 / -1; justify-self: start; padding: 0 8px; border: 1px dashed var(--soft);
           border-radius: 999px; font-size: 13px; font-style: italic; }
"""
"""Behind the style of all search pages."""

FACT = """<p>{text}</p>
"""

CARD = """<article{kind}>
<div class="views">{crop}{frame}</div>
<div class="caption">
<span class="rank">{rank}</span>
<span class="similarity" title="similarity">{similarity}</span>
<span class="bar"><span style="width:{percent}%"></span></span>
{verdict}<span class="when">{when} <span class="camera">{camera}</span></span>
{play}<span class="name">{source}</span>
<span class="detail">{detail}</span>
</div>
</article>"""

VERDICT = """<span class="verdict">{text}</span>
"""

PLAY = """<span class="play"><a href="{link}">▶ Play {place}</a><code>{command}</code></span>
"""

NOTHING = """<div class="none{kind}">{text}</div>"""

NOBODY = """<p class="nobody">Nobody was found.</p>"""
