"""Search in listed galleries (CUHK-SYSU's protocol) as slow, literal dictionaries and loops, and random lists."""

from dataclasses import replace

import numpy as np
from search_oracle import falling, iou, matching, random_case
from sklearn.metrics import average_precision_score


def random_lists_case(seed, ties=False, frames=12, queries=8):
    """A random case with three galleries of different lengths: `3`, `7` (the default) and `mixed`.

    Lists come in any order; of `mixed` some are empty, some name an image twice, some the query's own, which does not
    count; and some hold nobody who is searched for.
    """
    case = random_case(seed, ties, frames=frames, queries=queries)
    rng = np.random.default_rng(seed + 1000)

    def lists(length):
        return [rng.choice(frames, length, replace=False) for _ in range(queries)]

    mixed = [rng.integers(0, frames, rng.integers(0, frames + 1)) for _ in range(queries)]
    galleries = {"3": lists(3), "7": lists(7), "mixed": mixed}
    case.dataset = replace(case.dataset, galleries=galleries, default_gallery="7", cbgm=(4, 3))
    return case


def gallery_names(case, query, gallery):
    """Names of the images searched: those listed, or all; never the query's own; in the data set's order."""
    names = [frame.name for frame in case.dataset.gallery]
    if gallery in ("full", "-1"):
        listed = set(names)
    else:
        listed = {names[index] for index in case.dataset.galleries[gallery][query]}
    return [name for name in names if name in listed and name != case.dataset.queries[query].name]


def gallery_oracle(case, gallery, cbgm=None, cross_camera=False):
    """(AP, rank of the first true positive or -1) of every query."""
    return [_search(case, query, gallery, cbgm, cross_camera) for query in range(len(case.dataset.queries))]


def _search(case, query, gallery, cbgm, cross_camera):
    wanted, feature = case.dataset.queries[query], case.query_embeddings[query]
    frame_of = {frame.name: frame for frame in case.dataset.gallery}
    found_of = {frame.name: found for frame, found in zip(case.dataset.gallery, case.images, strict=True)}
    boxes, features, similar, truth = {}, {}, {}, {}
    for name in gallery_names(case, query, gallery):
        frame, found = frame_of[name], found_of[name]
        if cross_camera and frame.camera == wanted.camera:
            continue
        pairs = zip(frame.boxes, frame.identities, strict=True)
        persons = [box for box, identity in pairs if identity == wanted.identity]
        if persons:
            truth[name] = persons[0].astype(float)
        certain = [i for i in range(len(found.scores)) if found.scores[i] >= 0.5]
        if certain:
            boxes[name] = [found.boxes[i] for i in certain]
            features[name] = [found.embeddings[i] for i in certain]
            similar[name] = [float(np.dot(embedding, feature)) for embedding in features[name]]
    if cbgm:
        _match_contexts(case.contexts[query].embeddings, features, similar, *cbgm)
    labels, values, right = [], [], 0
    for name, similarities in similar.items():
        label = [0] * len(similarities)
        if name in truth:
            x1, y1, x2, y2 = truth[name]
            w, h = x2 - x1, y2 - y1
            for place in falling(similarities):
                if iou(boxes[name][place], truth[name]) >= min(0.5, w * h / ((w + 10) * (h + 10))):
                    label[place] = 1
                    right += 1
                    break
        labels += label
        values += similarities
    if not right:
        return 0.0, -1
    ranked = [labels[i] for i in falling(values)]
    return average_precision_score(labels, values) * right / len(truth), ranked.index(1)


def _match_contexts(context, features, similar, k1, k2):
    """Replace similarities of the matched detections, in the images of the k1 best."""
    everything = [(name, value) for name, values in similar.items() for value in values]
    best = falling([value for _, value in everything])[:k1]
    for name in {everything[i][0] for i in best}:
        edges = np.array([[float(np.dot(a, b)) for b in features[name]] for a in context[:k2]])
        pairs = matching(edges)
        for person, place in pairs:
            if person == 0:
                similar[name][place] = max(edges[pair] for pair in pairs)
