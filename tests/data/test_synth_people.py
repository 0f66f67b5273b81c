"""People: skeletons that stand on the ground, sprites that fill their boxes, looks that tell identities apart."""

from dataclasses import replace

import numpy as np
import pytest

from psarm.data.synth import SynthSettings, scene
from psarm.data.synth.appearance import (
    BAGS,
    FAMILY,
    HAIR_STYLES,
    HATS,
    LOWER_KINDS,
    PATTERNS,
    UPPER_KINDS,
    sample_family,
    sample_person,
)
from psarm.data.synth.cameras import camera_of
from psarm.data.synth.cast import NO_IDENTITY, build_cast
from psarm.data.synth.drawing import Canvas, Light, Surface, Tube
from psarm.data.synth.figure import draw_person
from psarm.data.synth.plan import plan_frames
from psarm.data.synth.pose import SHIN, THIGH, Stance, pose_skeleton, to_camera

LIGHT = Light((0.4, 0.6, 0.69), (0.5, 0.5, 0.5), (0.6, 0.6, 0.6))
SETTINGS = SynthSettings(frames=60, identities=12, width=192, height=108, seed=11)


@pytest.fixture(scope="module")
def world():
    cast = build_cast(SETTINGS)
    return cast, plan_frames(SETTINGS, cast)


@pytest.mark.parametrize("phase", np.linspace(0, 2 * np.pi, 9))
def test_bones_keep_their_length_and_a_foot_is_on_the_ground(phase):
    body = pose_skeleton(Stance(0.0, float(phase), 0.5), 0.1, 0.05)
    for hip, knee, ankle, heel, toe in body.legs:
        assert np.linalg.norm(knee - hip) == pytest.approx(THIGH, rel=1e-3)
        assert np.linalg.norm(ankle - knee) == pytest.approx(SHIN, rel=1e-6)
        assert min(heel[2], toe[2]) > -1e-9
    assert min(min(leg[3][2], leg[4][2]) for leg in body.legs) == pytest.approx(0.0, abs=1e-9)
    assert 0.9 < body.crown[2] < 1.05


def test_legs_swing_against_each_other_and_arms_against_legs():
    body = pose_skeleton(Stance(0.0, np.pi / 2, 0.5), 0.1, 0.05)
    left, right = body.legs
    assert left[1][0] > 0.05 > -0.05 > right[1][0]
    assert body.arms[0][2][0] < body.arms[1][2][0]


def test_yaw_zero_faces_the_camera_and_ninety_degrees_walks_right():
    assert to_camera(np.array([1.0, 0, 0]), 0.0) == pytest.approx([0, 0, 1])
    assert to_camera(np.array([1.0, 0, 0]), np.pi / 2) == pytest.approx([1, 0, 0])
    assert to_camera(np.array([0, 1.0, 0]), 0.0) == pytest.approx([1, 0, 0])


def test_a_tube_covers_its_width_and_the_nearer_one_wins():
    def paint(level):
        return lambda surface: (np.full((len(surface.along), 3), level, np.float32), None)

    flat = np.array([5.0, 5.0], np.float32)
    canvas = Canvas(40, 40)
    near = Tube((20, 5, 10), (20, 35, 10), (0.0, 1.0), flat, flat, paint(1.0), caps=(0.0, 0.0))
    canvas.draw(near, LIGHT)
    ys, xs = np.nonzero(canvas.mask)
    assert (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1) == (5, 35, 15, 25)
    before = canvas.colour[20, 18:22].copy()
    far = replace(near, start=(10, 20, 0), end=(30, 20, 0), material=paint(0.0))
    canvas.draw(far, LIGHT)
    assert (canvas.colour[20, 18:22] == before).all()
    assert canvas.mask[20, 11] and canvas.mask[20, 29]


def test_surface_coordinates_turn_with_the_body():
    seen = {}

    def material(surface: Surface):
        seen["around"] = surface.around
        return np.ones((len(surface.along), 3), np.float32), None

    wide = np.array([6.0, 6.0], np.float32)
    for yaw in (0.0, np.pi):
        Canvas(20, 20).draw(Tube((10, 2, 0), (10, 18, 0), (0.0, 1.0), wide, wide, material, yaw), LIGHT)
        middle = np.abs(seen["around"])
        # Facing the camera the front (0) is in view, seen from behind the back (π).
        assert (middle < np.pi / 2 + 0.01).all() if yaw == 0 else (middle > np.pi / 2 - 0.01).all()


def test_a_drawn_person_has_a_persons_shape():
    rng = np.random.default_rng(0)
    for _ in range(12):
        person = replace(sample_person(rng), hat="none")
        stance = Stance(float(rng.uniform(-3, 3)), float(rng.uniform(0, 6)), 0.4)
        sprite = draw_person(person, stance, (50.3, 100.7), 80.0, 0.15, LIGHT)
        height, width = sprite.alpha.shape
        assert 72 <= height <= 90
        assert 14 <= width <= 66
        assert sprite.top + height == pytest.approx(100.7, abs=7)
        assert sprite.left < 50.3 < sprite.left + width
        assert np.isfinite(sprite.colour).all()
        assert sprite.colour.min() >= 0
        assert 0.25 < (sprite.alpha > 0.5).mean() < 0.9


def test_every_cut_pattern_and_bag_can_be_drawn():
    rng = np.random.default_rng(1)
    choices = (UPPER_KINDS, LOWER_KINDS, PATTERNS, HAIR_STYLES, HATS, BAGS)
    options = zip(*(np.resize(choice, 12) for choice in choices), strict=True)
    shots = []
    for upper, lower, pattern, hair, hat, bag in options:
        person = sample_person(rng)
        person = replace(
            person,
            upper=replace(person.upper, kind=str(upper), pattern=str(pattern)),
            lower=replace(person.lower, kind=str(lower)),
            hair_style=str(hair),
            hat=str(hat),
            bag=str(bag),
        )
        sprite = draw_person(person, Stance(0.5, 1.0, 0.4), (40, 70), 60.0, 0.1, LIGHT)
        shots.append(sprite.colour.mean())
    assert len({float(shot) for shot in shots}) == 12


def test_a_family_shares_colours_in_different_arrangements():
    people = sample_family(np.random.default_rng(4))
    assert len(people) == FAMILY
    tops = {person.upper.colour for person in people}
    assert len(tops) == 2, "some wear the top's colour below and the trousers' colour above"
    assert {person.upper.second for person in people} == tops
    assert len({(person.upper.colour, person.upper.pattern) for person in people}) == FAMILY


def test_cast_is_split_by_whole_people_with_gaps_in_the_numbers(world):
    cast, _ = world
    assert len(set(cast.pids)) == len(cast.pids) == 12
    assert list(cast.pids) == sorted(cast.pids)
    assert sum(cast.test) == SETTINGS.test_identities == len(cast.test_rows)
    assert cast.pid(cast.distractor_rows[0]) == NO_IDENTITY


def test_plan_puts_people_in_view_once_a_frame_and_in_several_cameras(world):
    cast, frames = world
    assert len({frame.name for frame in frames}) == len(frames) == SETTINGS.frames
    seen = {row: set() for row in range(len(cast.pids))}
    for frame in frames:
        rows = [placement.person for placement in frame.people]
        assert len(rows) == len(set(rows)) >= 1
        for placement in frame.people:
            camera = camera_of(frame.camera)
            x, y, _ = camera.project(placement.x, placement.z, SETTINGS.width, SETTINGS.height)
            assert 0 <= x <= SETTINGS.width
            assert camera.horizon * SETTINGS.height < y <= SETTINGS.height * 1.2
            if placement.person in seen:
                assert cast.test[placement.person] == frame.test
                seen[placement.person].add(frame.camera)
    assert min(len(cameras) for cameras in seen.values()) >= 2
    mean = np.mean([len(frame.people) for frame in frames])
    assert mean == pytest.approx(SETTINGS.people_per_frame, rel=0.2)


def test_the_box_holds_the_person(world, monkeypatch):
    cast, frames = world
    monkeypatch.setattr(scene, "_cast_shadow", lambda *_: None)
    checked = 0
    for frame in frames[::9]:
        empty = scene.draw_frame(replace(frame, people=()), cast, SETTINGS)
        assert empty.rows.shape == (0, 5)
        for placement in frame.people[:1]:
            drawn = scene.draw_frame(replace(frame, people=(placement,)), cast, SETTINGS)
            [[_, x, y, w, h]] = drawn.rows.astype(int)
            change = np.abs(drawn.image.astype(int) - empty.image).max(axis=2)
            inside = change[y : y + h, x : x + w].copy()
            change[max(0, y - 2) : y + h + 2, max(0, x - 2) : x + w + 2] = 0
            assert change.max() < 12, "nothing of the person lies outside the box"
            assert (inside > 8).mean() > 0.2
            checked += 1
    assert checked > 4


def test_a_person_hidden_by_another_has_no_identity(world):
    cast, frames = world
    frame = next(f for f in frames if f.camera == 6)
    back = replace(frame.people[0], person=0, x=0.0, z=4.5)
    alone = scene.draw_frame(replace(frame, people=(back,)), cast, SETTINGS)
    assert alone.rows[:, 0].tolist() == [cast.pids[0]]
    front = replace(back, person=1, x=0.0, z=4.2)
    both = scene.draw_frame(replace(frame, people=(back, front)), cast, SETTINGS)
    assert cast.pids[1] in both.rows[:, 0]
    assert cast.pids[0] not in both.rows[:, 0]
