"""A Scene becomes pictures: uint8 frames at any times, the same for ever for the same scene.

Every object is an `Actor`: a list of `Look`s, each with the second by which the object has settled in it. A frame
blends the two looks around its time, so appearing, moving, recolouring, growing, shrinking and vanishing are one and
the same thing. All that does not move (background, specks, the bars in front of the objects) is drawn once per clip.

T frames  H, W height and width in pixels  P side of an object's patch in pixels  3 red, green, blue
"""

import colorsys
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from avcap.world.domains import Domain, get_domain
from avcap.world.scene import DIFFICULTIES, PLACES, Scene, VisualAtom

CANVAS_PX = 256
CELL_PX = CANVAS_PX // 2
RADII_PX = (18.0, 30.0, 44.0)  # of scene.SIZES
RADIUS_JITTER = 0.06  # 17-19, 28-32, 41-47: no two sizes can be taken for each other
CENTRE_JITTER_PX = 11.0  # a large star, 1.12 x 47 px from centre to tip, still stays in its cell
ANGLE_JITTER_DEGREES = 10.0
CHANGE_STARTS_S = 0.3  # a change "at k" is animated over [k - 0.3, k - 0.02] ...
CHANGE_SETTLED_S = 0.02  # ... and has settled in the frame at k

COLOUR_RGB = {
    "red": (220, 35, 40),
    "orange": (245, 125, 15),
    "yellow": (248, 232, 50),
    "green": (40, 165, 60),
    "cyan": (50, 212, 240),
    "blue": (45, 80, 230),
    "purple": (155, 55, 200),
    "white": (242, 242, 242),
}
INK_RGB = np.array((45, 40, 45), dtype=np.float32)  # of hand-drawn outlines

MAX_HIDDEN = 0.17  # largest share of any small object's area behind the bars and leaves in front ...
HIDDEN_WINDOW_PX = 28  # ... measured over squares of about the area of a small triangle, the least of all objects
NOISE_MARGIN_PX = 96  # the noise is that much larger than the canvas: 97 x 97 windows to choose from
SUPERSAMPLE = 4


class Look(NamedTuple):
    """How an object looks at one instant: centre and radius in pixels, colour 0 to 255, opacity 0 to 1."""

    x_px: float
    y_px: float
    radius_px: float
    red: float
    green: float
    blue: float
    opacity: float


@dataclass(frozen=True, kw_only=True)
class Key:
    """The look in which an object has settled by `second`."""

    second: float
    look: Look


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One object, from its appearance to the end of the clip. Its first key is invisible and lies before all time."""

    shape: str
    angle_degrees: float
    radius_factor: float  # one for its whole life: it grows from its own small to its own medium
    wobble_seed: int
    keys: list[Key]


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """All of a clip's picture that stays where it is. Arrays are float32."""

    pixels_HW3: np.ndarray  # background with specks and with what stands in front of the objects, 0 to 255
    visible_HW1: np.ndarray  # share of an object that shows: 0 behind a bar, 1 where nothing is in front
    light_HW3: np.ndarray | None  # factor: dark corners and tint; None: 1 everywhere
    noise_HW3: np.ndarray | None  # grey levels to add; larger than the canvas, every frame takes a window of it
    noise_moves: bool  # a new window for each frame, or one for the whole clip
    flicker: float  # amplitude of the slow change of brightness
    flicker_period_s: float
    flicker_phase: float


def render_frames(scene: Scene, times_T: Sequence[float], *, size: int | None = None) -> np.ndarray:
    """Scene and times in seconds -> uint8 (T, H, W, 3) RGB; 256 x 256, or squashed to `size` as the decoder does it."""
    domain = get_domain(scene.domain)
    backdrop = _make_backdrop(scene, domain)
    actors = _cast(scene)
    side_px = size or CANVAS_PX
    frames_THW3 = np.empty((len(times_T), side_px, side_px, 3), dtype=np.uint8)
    frame_HW3 = np.empty_like(backdrop.pixels_HW3)  # one for all times: fresh memory costs more than the drawing
    for index, time_s in enumerate(times_T):
        np.copyto(frame_HW3, backdrop.pixels_HW3)
        # An object under way is drawn last: it passes in front of those that stay.
        for actor in sorted(actors, key=lambda actor: _is_changing(actor, time_s)):
            _draw(frame_HW3, actor, _look_at(actor, time_s), visible_HW1=backdrop.visible_HW1, domain=domain)
        image_HW3 = _expose(frame_HW3, backdrop, time_s=time_s, seed=scene.seed)
        if size is not None:
            image_HW3 = np.asarray(Image.fromarray(image_HW3).resize((size, size), Image.Resampling.BICUBIC))
        frames_THW3[index] = image_HW3
    return frames_THW3


# The actors: what is where, and when


def _rng(scene: Scene, purpose: str) -> np.random.Generator:
    """One stream per purpose, so that a new kind of background does not move the objects. `unseen` looks as `default`:
    the domain is not part of it."""
    words = ("picture", scene.difficulty, purpose)
    return np.random.default_rng((scene.seed, *(zlib.crc32(word.encode()) for word in words)))


def _cast(scene: Scene) -> list[Actor]:
    """Scene -> its objects, in the order in which they appear."""
    rng = _rng(scene, "objects")
    actors: list[Actor] = []
    on_stage: dict[str, Actor] = {}
    for atom in scene.visual:
        if atom.kind == "appear":
            actor = _enter(atom, rng=rng)
            actors.append(actor)
        else:
            actor = on_stage.pop(atom.place)
            actor.keys.append(Key(second=atom.second, look=_change(actor, atom, rng=rng)))
        if atom.kind != "vanish":
            on_stage[atom.new_place or atom.place] = actor
    return actors


def _enter(atom: VisualAtom, *, rng: np.random.Generator) -> Actor:
    factor = 1 + rng.uniform(-RADIUS_JITTER, RADIUS_JITTER)
    x_px, y_px = _draw_centre(atom.place, rng=rng)
    radius_px = RADII_PX[atom.size] * factor
    red, green, blue = _draw_shade(atom.colour, rng=rng)
    settled = Look(x_px, y_px, radius_px, red, green, blue, 1.0)
    hidden = settled._replace(radius_px=0.6 * radius_px, opacity=0.0)
    return Actor(
        shape=atom.shape,
        angle_degrees=rng.uniform(-ANGLE_JITTER_DEGREES, ANGLE_JITTER_DEGREES),
        radius_factor=factor,
        wobble_seed=int(rng.integers(1 << 30)),
        keys=[Key(second=-math.inf, look=hidden), Key(second=atom.second, look=settled)],
    )


def _change(actor: Actor, atom: VisualAtom, *, rng: np.random.Generator) -> Look:
    """Actor and what happens to it -> its next look."""
    look = actor.keys[-1].look
    if atom.kind == "vanish":
        return look._replace(opacity=0.0)
    if atom.new_place is not None:
        x_px, y_px = _draw_centre(atom.new_place, rng=rng)
        return look._replace(x_px=x_px, y_px=y_px)
    if atom.new_colour is not None:
        red, green, blue = _draw_shade(atom.new_colour, rng=rng)
        return look._replace(red=red, green=green, blue=blue)
    step = {"grow": 1, "shrink": -1}[atom.kind]
    return look._replace(radius_px=RADII_PX[atom.size + step] * actor.radius_factor)


def _draw_centre(place: str, *, rng: np.random.Generator) -> tuple[float, float]:
    row, column = divmod(PLACES.index(place), 2)
    jitter_x, jitter_y = rng.uniform(-CENTRE_JITTER_PX, CENTRE_JITTER_PX, size=2)
    return (column + 0.5) * CELL_PX + jitter_x, (row + 0.5) * CELL_PX + jitter_y


def _draw_shade(colour: str, *, rng: np.random.Generator) -> tuple[float, float, float]:
    """Colour name -> red, green, blue near its base colour: another hue by up to 4 degrees, up to 8 % darker."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in COLOUR_RGB[colour]))
    hue += rng.uniform(-0.011, 0.011)
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation * rng.uniform(0.92, 1.0), value * rng.uniform(0.92, 1))
    return 255 * red, 255 * green, 255 * blue


def _is_changing(actor: Actor, time_s: float) -> bool:
    return any(key.second - CHANGE_STARTS_S < time_s < key.second for key in actor.keys)


def _look_at(actor: Actor, time_s: float) -> Look:
    begun = [key for key in actor.keys if key.second - CHANGE_STARTS_S < time_s]
    if len(begun) < 2:
        return begun[0].look
    before, after = begun[-2:]
    share = (time_s - after.second + CHANGE_STARTS_S) / (CHANGE_STARTS_S - CHANGE_SETTLED_S)
    if share >= 1:
        return after.look
    eased = share * share * (3 - 2 * share)
    return Look(*(old + (new - old) * eased for old, new in zip(before.look, after.look, strict=True)))


# One object in one frame


def _draw(frame_HW3: np.ndarray, actor: Actor, look: Look, *, visible_HW1: np.ndarray, domain: Domain) -> None:
    """Draws an object onto a float32 frame, in place."""
    if look.opacity <= 0:
        return
    wobble_seed = actor.wobble_seed if domain.outlined else None
    key = (actor.shape, round(look.radius_px, 1), round(actor.angle_degrees, 1), wobble_seed)
    fill_rgb = np.array((look.red, look.green, look.blue), dtype=np.float32)
    _paint(frame_HW3, _fill_mask(*key), fill_rgb, look=look, visible_HW1=visible_HW1)
    if domain.outlined:
        _paint(frame_HW3, _ink_mask(*key), INK_RGB, look=look, visible_HW1=visible_HW1)


def _paint(
    frame_HW3: np.ndarray, mask_PP1: np.ndarray, colour_3: np.ndarray, *, look: Look, visible_HW1: np.ndarray
) -> None:
    """Lays a colour over the frame where the mask (0 to 1, centred on the object) says, in place."""
    half_px = mask_PP1.shape[0] // 2
    # Whole pixels: what a slide loses in smoothness at 15 frames a second nobody sees, and the mask can be cached.
    left, top = round(look.x_px) - half_px, round(look.y_px) - half_px
    rows, columns = (slice(max(start, 0), min(start + 2 * half_px, CANVAS_PX)) for start in (top, left))
    inside_PP1 = mask_PP1[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    patch_PP3 = frame_HW3[rows, columns]
    patch_PP3 += (colour_3 - patch_PP3) * (inside_PP1 * visible_HW1[rows, columns] * np.float32(look.opacity))


@lru_cache(maxsize=512)
def _fill_mask(shape: str, radius_px: float, angle_degrees: float, wobble_seed: int | None) -> np.ndarray:
    """An object's antialiased area -> float32 (P, P, 1), 0 to 1, with its centre in the middle."""
    image, loops = _mask_canvas(shape, radius_px, angle_degrees, wobble_seed)
    draw = ImageDraw.Draw(image)
    for loop, level in zip(loops, (255, 0), strict=False):  # the second loop, if there is one, is a hole
        draw.polygon(loop, fill=level)
    return _to_mask(image)


@lru_cache(maxsize=512)
def _ink_mask(shape: str, radius_px: float, angle_degrees: float, wobble_seed: int) -> np.ndarray:
    """An object's outline as if by pen, not quite along its area -> float32 (P, P, 1), 0 to 1."""
    image, loops = _mask_canvas(shape, radius_px, angle_degrees, wobble_seed + 1)
    draw = ImageDraw.Draw(image)
    for loop in loops:
        draw.line([*loop, *loop[:2]], fill=255, width=round(2.6 * SUPERSAMPLE), joint="curve")
    return _to_mask(image)


def _mask_canvas(
    shape: str, radius_px: float, angle_degrees: float, wobble_seed: int | None
) -> tuple[Image.Image, list[list[tuple[float, float]]]]:
    """An empty canvas, SUPERSAMPLE times as fine as the picture, and the shape's outlines in its coordinates."""
    half_px = math.ceil(1.2 * radius_px) + 3
    canvas = Image.new("L", (2 * half_px * SUPERSAMPLE,) * 2)
    cosine, sine = math.cos(math.radians(angle_degrees)), math.sin(math.radians(angle_degrees))
    loops = []
    for loop_N2 in SHAPE_LOOPS[shape]:
        if wobble_seed is not None:
            loop_N2 = _wobble(loop_N2, np.random.default_rng(wobble_seed))
        turned_N2 = loop_N2 @ np.array([[cosine, sine], [-sine, cosine]])
        points_N2 = (turned_N2 * radius_px + half_px) * SUPERSAMPLE
        loops.append([(x, y) for x, y in points_N2.tolist()])
    return canvas, loops


def _to_mask(canvas: Image.Image) -> np.ndarray:
    return np.asarray(canvas.reduce(SUPERSAMPLE), dtype=np.float32)[:, :, None] / np.float32(255)


def _wobble(loop_N2: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An outline -> the same drawn by an unsteady hand: up to 5 % nearer to its centre or farther off."""
    steps = np.linspace(0, 1, 8, endpoint=False)[:, None]
    edges = [start + (end - start) * steps for start, end in zip(loop_N2, np.roll(loop_N2, -1, axis=0), strict=True)]
    dense_N2 = np.concatenate(edges)
    angles_N = np.arctan2(dense_N2[:, 1], dense_N2[:, 0])
    waves = [np.sin(count * angles_N + rng.uniform(0, 2 * np.pi)) for count in (2, 3, 5)]
    return dense_N2 * (1 + 0.016 * sum(waves))[:, None]


def _regular(num_corners: int, *radii: float, first_degrees: float = -90.0) -> np.ndarray:
    """Corners on circles that take turns -> (N, 2) in units of the object's radius; y points down."""
    angles = np.radians(first_degrees + 360 / num_corners * np.arange(num_corners))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.resize(radii, num_corners)[:, None]


_ARM = 0.36  # half the width of a cross's arm
# Outlines in units of the object's radius; a second one is a hole.
SHAPE_LOOPS = {
    "circle": [_regular(48, 0.95)],
    "square": [_regular(4, 1.12, first_degrees=45)],
    "triangle": [_regular(3, 1.12)],
    "star": [_regular(10, 1.12, 0.48)],
    "cross": [
        np.array(
            [
                (-_ARM, -1),
                (_ARM, -1),
                (_ARM, -_ARM),
                (1, -_ARM),
                (1, _ARM),
                (_ARM, _ARM),
                (_ARM, 1),
                (-_ARM, 1),
                (-_ARM, _ARM),
                (-1, _ARM),
                (-1, -_ARM),
                (-_ARM, -_ARM),
            ]
        )
    ],
    "ring": [_regular(48, 1.0), _regular(48, 0.56)],
}


# What does not move


def _make_backdrop(scene: Scene, domain: Domain) -> Backdrop:
    rng = _rng(scene, "backdrop")
    clutter = max(DIFFICULTIES[scene.difficulty].clutter, domain.min_clutter)
    pixels_HW3 = _draw_texture(domain, contrast=math.sqrt(clutter), rng=rng)
    _lay(pixels_HW3, _specks(round(36 * clutter), rng=rng), tone_3=rng.uniform(25, 70) * np.ones(3))
    front_HW1 = _front(round(6 * clutter), rng=rng)
    _lay(pixels_HW3, front_HW1, tone_3=_draw_muted(0.12, 0.3, rng=rng))
    visible_HW1 = 1 - front_HW1
    if domain.outlined:
        # Crayon: the paper's grain shows through the fill.
        visible_HW1 = visible_HW1 * (0.8 + 0.2 * _smooth_noise(rng, 100, 100))[:, :, None].astype(np.float32)
    noise_levels = math.hypot(5.0 * clutter * rng.uniform(0.4, 1), domain.grain)
    return Backdrop(
        pixels_HW3=pixels_HW3,
        visible_HW1=visible_HW1,
        light_HW3=_light(domain.vignette, domain.tint) if domain.vignette or domain.tint != (1, 1, 1) else None,
        noise_HW3=_standard_noise() * np.float32(noise_levels) if noise_levels else None,
        noise_moves=bool(rng.random() < 0.5) or domain.grain > 0,
        flicker=0.12 * clutter * rng.random(),
        flicker_period_s=rng.uniform(5, 15),
        flicker_phase=rng.uniform(0, 2 * math.pi),
    )


def _expose(frame_HW3: np.ndarray, backdrop: Backdrop, *, time_s: float, seed: int) -> np.ndarray:
    """Float frame -> uint8 picture under the light of its time, with the noise of its time. Overwrites the frame."""
    swing = math.sin(2 * math.pi * time_s / backdrop.flicker_period_s + backdrop.flicker_phase)
    frame_HW3 *= np.float32(1 - backdrop.flicker * (0.5 + 0.5 * swing))
    if backdrop.light_HW3 is not None:
        frame_HW3 *= backdrop.light_HW3
    if backdrop.noise_HW3 is not None:
        moment = round(1000 * time_s) if backdrop.noise_moves else 0
        x, y = np.random.default_rng((seed, moment)).integers(NOISE_MARGIN_PX + 1, size=2)
        frame_HW3 += backdrop.noise_HW3[y : y + CANVAS_PX, x : x + CANVAS_PX]
    return np.clip(frame_HW3, 0, 255, out=frame_HW3).astype(np.uint8)


@lru_cache(maxsize=1)
def _standard_noise() -> np.ndarray:
    """Grey noise of standard deviation 1, a little larger than the canvas. One for all clips: drawing it is slow."""
    side_px = CANVAS_PX + NOISE_MARGIN_PX
    grey_HW1 = np.random.default_rng(0).standard_normal((side_px, side_px, 1), dtype=np.float32)
    return np.repeat(grey_HW1, 3, axis=2)  # adding three equal channels is three times as fast as broadcasting one


@lru_cache(maxsize=4)
def _light(vignette: float, tint: tuple[float, float, float]) -> np.ndarray:
    """Share of light that each pixel gets (H, W, 3): the tint in the middle, 1 - vignette of it in the corners."""
    x_HW, y_HW = _grid()
    distance_HW = np.hypot(x_HW - 0.5, y_HW - 0.5) / math.hypot(0.5, 0.5)
    return ((1 - vignette * distance_HW**2)[:, :, None] * np.array(tint)).astype(np.float32)


def _draw_muted(darkest: float, brightest: float, *, rng: np.random.Generator) -> np.ndarray:
    """A greyish colour (3,), 0 to 255, that no object has."""
    hsv = rng.uniform(0, 1), rng.uniform(0.04, 0.26), rng.uniform(darkest, brightest)
    return 255 * np.array(colorsys.hsv_to_rgb(*hsv))


def _lay(pixels_HW3: np.ndarray, alpha_HW1: np.ndarray, *, tone_3: np.ndarray) -> None:
    """Lays a tone over float32 pixels, in place."""
    pixels_HW3 += (tone_3.astype(np.float32) - pixels_HW3) * alpha_HW1


def _specks(num_specks: int, *, rng: np.random.Generator) -> np.ndarray:
    """Dots and scratches behind the objects, too small and too grey to be objects -> opacity (H, W, 1)."""
    canvas, draw = _fine_canvas()
    most = (2 * CANVAS_PX, 2 * CANVAS_PX, 6.4, math.pi)
    for x, y, reach, angle in rng.uniform((0, 0, 2, 0), most, size=(num_specks, 4)):
        if rng.random() < 0.6:
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=180)
        else:
            reach_x, reach_y = 5 * reach * math.cos(angle), 5 * reach * math.sin(angle)
            draw.line((x - reach_x, y - reach_y, x + reach_x, y + reach_y), fill=150, width=3)
    return _coarse(canvas)


def _front(num_tries: int, *, rng: np.random.Generator) -> np.ndarray:
    """Thin bars and twigs that stand in front of the objects -> opacity (H, W, 1). None hides much of any object."""
    front_HW1 = np.zeros((CANVAS_PX, CANVAS_PX, 1), dtype=np.float32)
    for _ in range(num_tries):
        canvas, draw = _fine_canvas()
        (_draw_bar if rng.random() < 0.5 else _draw_twig)(draw, rng)
        joined_HW1 = np.maximum(front_HW1, _coarse(canvas))
        if _largest_share(joined_HW1) <= MAX_HIDDEN:
            front_HW1 = joined_HW1
    return front_HW1


def _largest_share(alpha_HW1: np.ndarray) -> float:
    """The largest mean opacity over any square of HIDDEN_WINDOW_PX; every fourth pixel is near enough."""
    coarse = Image.fromarray((255 * alpha_HW1[:, :, 0]).astype(np.uint8)).reduce(4)
    return float(np.asarray(coarse.filter(ImageFilter.BoxBlur((HIDDEN_WINDOW_PX / 4 - 1) / 2))).max()) / 255


def _draw_bar(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A straight bar of 2 to 4 pixels from edge to edge, upright or lying, a little askew."""
    near, askew = rng.uniform(0, 2 * CANVAS_PX), rng.uniform(-60, 60)
    ends = [(near, 0.0), (near + askew, 2.0 * CANVAS_PX)]
    if rng.random() < 0.5:
        ends = [(y, x) for x, y in ends]
    draw.line(ends, fill=255, width=int(rng.integers(4, 9)))


def _draw_twig(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A curved stem with leaves."""
    x, y = rng.uniform(0, 2 * CANVAS_PX, size=2)
    heading, bend = rng.uniform(0, 2 * math.pi), rng.uniform(-0.25, 0.25)
    for _ in range(int(rng.integers(5, 12))):
        next_x, next_y = x + 22 * math.cos(heading), y + 22 * math.sin(heading)
        draw.line((x, y, next_x, next_y), fill=255, width=3)
        leaf_x, leaf_y = next_x + rng.uniform(-12, 12), next_y + rng.uniform(-12, 12)
        draw.ellipse((leaf_x - 7, leaf_y - 5, leaf_x + 7, leaf_y + 5), fill=255)
        x, y, heading = next_x, next_y, heading + bend


def _fine_canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A black canvas of twice the picture's resolution, and the brush for it."""
    canvas = Image.new("L", (2 * CANVAS_PX, 2 * CANVAS_PX))
    return canvas, ImageDraw.Draw(canvas)


def _coarse(canvas: Image.Image) -> np.ndarray:
    return np.asarray(canvas.reduce(2), dtype=np.float32)[:, :, None] / np.float32(255)


# Textures: rng -> (H, W), about 0 to 1, how much of the second background colour a pixel has


def _draw_texture(domain: Domain, *, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """Two muted colours, mixed by one of the domain's textures -> float32 (H, W, 3). Contrast 0: a single colour."""
    darkest, brightest = domain.brightness
    middle = (darkest + brightest) / 2  # one colour on each side of it: else many textures could not be seen
    colours = [_draw_muted(darkest, middle, rng=rng), _draw_muted(middle, brightest, rng=rng)]
    first_3, second_3 = colours if rng.random() < 0.5 else colours[::-1]
    name = domain.textures[rng.integers(len(domain.textures))]
    share_HW1 = contrast * TEXTURES[name](rng)[:, :, None]
    return (first_3 + (second_3 - first_3) * share_HW1).astype(np.float32)


@lru_cache(maxsize=1)
def _grid() -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel, each (H, W), 0 to 1."""
    ticks = (np.arange(CANVAS_PX, dtype=np.float32) + 0.5) / CANVAS_PX
    x_HW, y_HW = np.meshgrid(ticks, ticks)
    return x_HW, y_HW


def _along(rng: np.random.Generator) -> np.ndarray:
    """(H, W): how far each pixel lies in some direction, 0 to 1 at most."""
    angle = rng.uniform(0, 2 * math.pi)
    x_HW, y_HW = _grid()
    return np.float32(0.5) + 0.7 * ((x_HW - 0.5) * math.cos(angle) + (y_HW - 0.5) * math.sin(angle))


def _waves(phase_HW: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * math.pi * phase_HW)


def _smooth_noise(rng: np.random.Generator, num_columns: int, num_rows: int) -> np.ndarray:
    """(H, W) in 0 to 1: so many random values across and down, with smooth passages between them."""
    coarse = Image.fromarray(rng.integers(256, size=(num_rows, num_columns), dtype=np.uint8))
    return np.asarray(coarse.resize((CANVAS_PX, CANVAS_PX), Image.Resampling.BICUBIC), dtype=np.float32) / 255


def _noise(rng: np.random.Generator) -> np.ndarray:
    num_cells = int(rng.integers(5, 48))
    return _smooth_noise(rng, num_cells, num_cells)


def _blobs(rng: np.random.Generator) -> np.ndarray:
    # A steep curve turns smooth noise into patches with soft edges.
    return 1 / (1 + np.exp(-12 * (_smooth_noise(rng, 5, 5) - 0.5)))


def _checks(rng: np.random.Generator) -> np.ndarray:
    count = rng.uniform(3, 9)
    x_HW, y_HW = _grid()
    signs_HW = np.sin(2 * math.pi * count * (x_HW + rng.random())) * np.sin(2 * math.pi * count * (y_HW + rng.random()))
    return 0.5 + 0.5 * np.sign(signs_HW)


def _ripples(rng: np.random.Generator) -> np.ndarray:
    x_HW, y_HW = _grid()
    return _waves(rng.uniform(4, 12) * np.hypot(x_HW - rng.random(), y_HW - rng.random()))


def _weave(rng: np.random.Generator) -> np.ndarray:
    count = rng.uniform(8, 20)
    return 0.5 * _waves(count * _along(rng)) + 0.5 * _waves(count * _along(rng))


def _fibres(rng: np.random.Generator) -> np.ndarray:
    return 0.5 * _smooth_noise(rng, 24, 128) + 0.5 * _smooth_noise(rng, 4, 4)


def _ruled(rng: np.random.Generator) -> np.ndarray:
    _, y_HW = _grid()
    lines_HW = _waves(rng.uniform(8, 14) * y_HW + rng.random()) > 0.97
    return 0.3 * _fibres(rng) + 0.7 * lines_HW


def _squared(rng: np.random.Generator) -> np.ndarray:
    x_HW, y_HW = _grid()
    count = rng.uniform(8, 14)
    lines_HW = np.maximum(_waves(count * x_HW + rng.random()), _waves(count * y_HW + rng.random())) > 0.97
    return 0.3 * _fibres(rng) + 0.7 * lines_HW


TEXTURES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "gradient": _along,
    "stripes": lambda rng: _waves(rng.uniform(2, 10) * _along(rng)),
    "noise": _noise,
    "blobs": _blobs,
    "checks": _checks,
    "ripples": _ripples,
    "weave": _weave,
    "fibres": _fibres,
    "ruled": _ruled,
    "grid": _squared,
}
