import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from avcap.errors import UserError
from avcap.world.domains import DOMAINS, get_domain
from avcap.world.render import CELL_PX, COLOUR_RGB, RADII_PX, RADIUS_JITTER, TEXTURES, render_frames
from avcap.world.scene import COLOURS, DIFFICULTIES, PLACES, SHAPES, Scene, VisualAtom, make_scene, stage_at

LOOKS = [name for name in DOMAINS if name != "unseen"]  # which looks as default does


def scene_of(*visual: VisualAtom, difficulty: str = "easy", domain: str = "default", seed: int = 7) -> Scene:
    return Scene(seed=seed, difficulty=difficulty, domain=domain, duration_s=6, visual=visual, sounds=())


def atom(second: int, kind: str, **changed) -> VisualAtom:
    before = {"colour": "red", "shape": "circle", "place": "top-left", "size": 1}
    return VisualAtom(second=second, kind=kind, **(before | changed))


def cell(frame_HW3: np.ndarray, place: str) -> np.ndarray:
    row, column = divmod(PLACES.index(place), 2)
    return frame_HW3[row * CELL_PX : (row + 1) * CELL_PX, column * CELL_PX : (column + 1) * CELL_PX].astype(float)


def object_pixels(scene: Scene, second: int, place: str) -> np.ndarray:
    """(N, 3): the pixels of a cell that have the object's colour: those that change if all colours are exchanged."""

    def exchanged(colour: str | None) -> str | None:
        return colour and COLOURS[COLOURS.index(colour) - 4]  # red for cyan, yellow for purple, ...

    visual = [replace(a, colour=exchanged(a.colour), new_colour=exchanged(a.new_colour)) for a in scene.visual]
    shown, other = (
        cell(render_frames(one, [second])[0], place) for one in (scene, replace(scene, visual=tuple(visual)))
    )
    change = np.abs(shown - other).sum(axis=2)
    return shown[change > 0.7 * change.max()]


def seen_colour(pixels_N3: np.ndarray) -> str:
    """The base colour nearest to the pixels, whatever their brightness (a person, too, allows for the light)."""
    seen = np.median(pixels_N3, axis=0)
    bases = np.array([COLOUR_RGB[name] for name in COLOURS], dtype=float)
    distances = np.linalg.norm(bases / bases.max(axis=1, keepdims=True) - seen / seen.max(), axis=1)
    return COLOURS[distances.argmin()]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("domain", LOOKS)
def test_every_object_shows_its_colour_in_its_place(domain, difficulty):
    for seed in range(8):
        scene = make_scene(seed, difficulty=difficulty, domain=domain)
        for second in range(1, scene.duration_s, 4):
            for place, thing in stage_at(scene, second).items():
                assert seen_colour(object_pixels(scene, second, place)) == thing.colour, (seed, second, place)


def test_an_empty_place_shows_the_bare_background():
    scene = scene_of(atom(2, "appear"))
    frame = render_frames(scene, [3])[0]
    # easy, default: a background of a single colour
    assert np.ptp(cell(frame, "bottom-right"), axis=(0, 1)).max() == 0
    assert np.ptp(cell(frame, "top-left"), axis=(0, 1)).max() > 50


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_never_overlap(shape):
    areas = {
        size: [
            len(object_pixels(scene_of(atom(1, "appear", size=size, shape=shape), seed=seed), 1, "top-left"))
            for seed in range(8)
        ]
        for size in range(len(RADII_PX))
    }
    assert max(areas[0]) < 0.6 * min(areas[1]) and max(areas[1]) < 0.6 * min(areas[2])
    # radii 28.2 and 31.8 are the ends of medium, 41.4 the small end of large
    assert RADII_PX[1] * (1 + RADIUS_JITTER) < 0.8 * RADII_PX[2] * (1 - RADIUS_JITTER)


def test_even_the_largest_object_stays_in_its_cell():
    for shape in SHAPES:
        for seed in range(6):
            scene = scene_of(atom(1, "appear", size=2, shape=shape), seed=seed)
            frame = render_frames(scene, [1])[0]
            for place in PLACES[1:]:
                assert np.ptp(cell(frame, place), axis=(0, 1)).max() == 0, (shape, seed, place)


CHANGES = {
    "move": {"new_place": "bottom-right"},
    "recolour": {"new_colour": "cyan"},
    "grow": {},
    "shrink": {},
    "vanish": {},
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_under_way_just_before_its_second_and_settled_at_it(kind):
    scene = scene_of(atom(1, "appear"), atom(3, kind, **CHANGES[kind]))
    before, still_before, under_way, settled, after = render_frames(scene, [1, 2.69, 2.85, 3, 5])
    np.testing.assert_array_equal(still_before, before)
    np.testing.assert_array_equal(after, settled)
    assert not np.array_equal(under_way, before) and not np.array_equal(under_way, settled)
    assert not np.array_equal(before, settled)


def test_changes_lead_where_the_scene_says():
    def pixels(change: VisualAtom, place: str) -> np.ndarray:
        return object_pixels(scene_of(atom(1, "appear"), change), 3, place)

    start = len(object_pixels(scene_of(atom(1, "appear")), 3, "top-left"))
    assert len(pixels(atom(3, "grow"), "top-left")) > 1.6 * start
    assert len(pixels(atom(3, "shrink"), "top-left")) < 0.6 * start
    assert seen_colour(pixels(atom(3, "recolour", new_colour="cyan"), "top-left")) == "cyan"
    assert len(pixels(atom(3, "move", new_place="bottom-right"), "bottom-right")) == pytest.approx(start, rel=0.05)
    gone = render_frames(scene_of(atom(1, "appear"), atom(3, "vanish")), [0, 3])
    np.testing.assert_array_equal(gone[0], gone[1])


def test_a_frame_depends_on_its_time_alone():
    scene = make_scene(3, difficulty="hard", domain="film")  # moving grain
    frames = render_frames(scene, [0, 1.4, 5])
    for index, time_s in enumerate((0, 1.4, 5)):
        np.testing.assert_array_equal(render_frames(scene, [time_s])[0], frames[index])


def test_size_squashes_as_the_decoder_does():
    scene = make_scene(5)
    full, squashed = render_frames(scene, [4])[0], render_frames(scene, [4], size=96)[0]
    np.testing.assert_array_equal(squashed, Image.fromarray(full).resize((96, 96), Image.Resampling.BICUBIC))


def test_the_same_scene_looks_the_same_in_another_process():
    code = (
        "import hashlib; from avcap.world.render import render_frames; from avcap.world.scene import make_scene;"
        "print(hashlib.sha256(render_frames(make_scene(9), [2, 6.8]).tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == hashlib.sha256(render_frames(make_scene(9), [2, 6.8]).tobytes()).hexdigest()


def test_domains_look_different_but_unseen_looks_as_default():
    looks = {name: render_frames(make_scene(4, domain=name), [3, 5]).astype(float) for name in DOMAINS}
    np.testing.assert_array_equal(looks["unseen"], looks["default"])
    for one, other in (("default", "film"), ("default", "paper"), ("film", "paper")):
        assert np.abs(looks[one] - looks[other]).mean() > 5, (one, other)


def test_every_texture_of_a_domain_can_be_drawn():
    for domain in DOMAINS.values():
        for name in domain.textures:
            field_HW = TEXTURES[name](np.random.default_rng(1))
            assert field_HW.shape == (256, 256) and np.ptp(field_HW) > 0.4
            assert field_HW.min() > -0.1 and field_HW.max() < 1.1


def test_an_unknown_domain_is_the_users_error():
    with pytest.raises(UserError, match="'cartoon' is not known; expected one of default, unseen, film, paper"):
        get_domain("cartoon")
