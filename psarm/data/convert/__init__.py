"""Somebody's own labelled video or pictures → a data set split by visit (`psarm.data.visits`).

`mot_labels` and `mot`, or `coco` (labels as others write them) → `sources` (who is where in which picture)
→ `pictures` (decoded or copied) → `split` (visits, queries, training part) → `writer` (files) → `summary`.
"""

from psarm.data.convert.coco import CocoLabels
from psarm.data.convert.convert import convert_coco, convert_mot
from psarm.data.convert.mot import MotClip
from psarm.data.convert.sources import ConvertSettings
from psarm.data.convert.summary import ConvertSummary

__all__ = ["CocoLabels", "ConvertSettings", "ConvertSummary", "MotClip", "convert_coco", "convert_mot"]
