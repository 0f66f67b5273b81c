"""Search in listed galleries (CUHK-SYSU's protocol) as slow, literal dictionaries and loops, and random lists."""

from dataclasses import dataclass, replace

import numpy as np
from search_oracle import falling, iou, matching, random_case
from sklearn.metrics import average_precision_score


@dataclass
class Where:
    items: np.ndarray
    boxes: np.ndarray


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


def random_located_case(seed, ties=False, frames=12, queries=8):
    """The same with galleries that say where the person is, as CUHK-SYSU's do: `first`, `7` (the default) and `plain`,
    which does not say.

    Lists name images twice, with one box, two or none, and the query's own image with or without box. Boxes are of
    anybody in the image or of nobody, so that what is annotated says nothing; identities are twice in some images.
    """
    case = random_lists_case(seed, ties, frames, queries)
    rng = np.random.default_rng(seed + 2000)
    names = [frame.name for frame in case.dataset.gallery]
    for frame in case.dataset.gallery:
        frame.identities[rng.random(len(frame.identities)) < 0.3] = rng.integers(6)
    galleries, located = {}, {}
    for name, length in (("first", 5), ("7", 7)):
        galleries[name], located[name] = [], []
        for query in case.dataset.queries:
            images = rng.integers(0, frames, length)
            if query.name in names and rng.random() < 0.5:
                images[rng.integers(length)] = names.index(query.name)
            items = np.flatnonzero(rng.random(length) < 0.5)
            boxes = []
            for item in items:
                around = case.images[images[item]].boxes
                if not len(around) or rng.random() < 0.2:
                    around = np.array([[5, 5, 40, 90]])
                boxes.append(np.round(around[rng.integers(len(around))] + rng.integers(0, 3)))
            galleries[name].append(images)
            located[name].append(Where(items, np.array(boxes, np.float32).reshape(-1, 4)))
    galleries["plain"] = case.dataset.galleries["mixed"]
    case.dataset = replace(case.dataset, galleries=galleries, located=located)
    return case


def gallery_items(case, query, gallery):
    """What the protocol files hold: (name of an image, box x, y, w, h or None) …; of a gallery without boxes, made up
    from the images in the data set's order, without the query's own, each with the first box of the identity."""
    dataset, wanted = case.dataset, case.dataset.queries[query]
    names = [frame.name for frame in dataset.gallery]
    if gallery in dataset.located:
        boxes = dict(zip(dataset.located[gallery][query].items, dataset.located[gallery][query].boxes, strict=True))
        items = []
        for item, image in enumerate(dataset.galleries[gallery][query]):
            x1, y1, x2, y2 = boxes.get(item, [0] * 4)
            items.append((names[image], np.array([x1, y1, x2 - x1, y2 - y1], float) if item in boxes else None))
        return items
    listed = range(len(names)) if gallery is None else sorted(set(dataset.galleries[gallery][query]))
    items = []
    for image in listed:
        frame = dataset.gallery[image]
        if frame.name != wanted.name:
            pairs = zip(frame.boxes.astype(float), frame.identities, strict=True)
            persons = [box for box, identity in pairs if identity == wanted.identity]
            box = np.concatenate([persons[0][:2], persons[0][2:] - persons[0][:2]]) if persons else None
            items.append((frame.name, box))
    return items


def all_items(case, query, gallery):
    """Items of a gallery by its name; the full set begins with those of the first gallery that has boxes."""
    if gallery not in ("full", "-1"):
        return gallery_items(case, query, gallery)
    first = next(iter(case.dataset.galleries), None)
    if first not in case.dataset.located:
        return gallery_items(case, query, None)
    items = gallery_items(case, query, first)
    tested = {case.dataset.queries[query].name} | {name for name, _ in items}
    return items + [(frame.name, None) for frame in case.dataset.gallery if frame.name not in tested]


def gallery_names(case, query, gallery):
    """Names of the images searched, in the data set's order."""
    names = {name for name, _ in all_items(case, query, gallery)}
    return [frame.name for frame in case.dataset.gallery if frame.name in names]


def gallery_oracle(case, gallery, cbgm=None, cross_camera=False):
    """(AP, rank of the first true positive or -1) of every query."""
    return [_search(case, query, gallery, cbgm, cross_camera) for query in range(len(case.dataset.queries))]


def _search(case, query, gallery, cbgm, cross_camera):
    """The released rule, item by item."""
    wanted, feature = case.dataset.queries[query], case.query_embeddings[query]
    place = {frame.name: index for index, frame in enumerate(case.dataset.gallery)}
    name2sim, name2gt, boxes, features = {}, {}, {}, {}
    count_gt = count_tp = 0
    for name, gt in all_items(case, query, gallery):
        if cross_camera and case.dataset.gallery[place[name]].camera == wanted.camera:
            continue
        count_gt += gt is not None
        found = case.images[place[name]]
        certain = [i for i in range(len(found.scores)) if found.scores[i] >= 0.5]
        if not certain or name in name2sim:
            continue
        boxes[name] = [found.boxes[i] for i in certain]
        features[name] = [found.embeddings[i] for i in certain]
        name2sim[name] = [float(np.dot(embedding, feature)) for embedding in features[name]]
        name2gt[name] = gt
    # The released code leaves equal similarities to the sorting; here the data set's order decides.
    name2sim = {name: name2sim[name] for name in sorted(name2sim, key=place.get)}
    if cbgm:
        _match_contexts(case.contexts[query].embeddings, features, name2sim, *cbgm)
    y_true, y_score = [], []
    for name, sim in name2sim.items():
        label = [0] * len(sim)
        if name2gt[name] is not None:
            x, y, w, h = name2gt[name]
            for j in falling(sim):
                if iou(boxes[name][j], (x, y, x + w, y + h)) >= min(0.5, w * h / ((w + 10) * (h + 10))):
                    label[j] = 1
                    count_tp += 1
                    break
        y_true += label
        y_score += sim
    if not count_tp:
        return 0.0, -1
    ranked = [y_true[i] for i in falling(y_score)]
    return average_precision_score(y_true, y_score) * count_tp / count_gt, ranked.index(1)


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
