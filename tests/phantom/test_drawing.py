"""What makes the drawing fast gives the same picture as the plain way: tables, boxes, one-dimensional blurs."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from prior_fast.phantom.anatomy import draw_chest
from prior_fast.phantom.contents import stream
from prior_fast.phantom.lines import draw_lines, draw_numbers, fill_polygon, grow_trees, tree
from prior_fast.phantom.masks import resize_mask, whole
from prior_fast.phantom.patient import Patient
from prior_fast.phantom.textures import Box, Grid, Noise

SHAPE, SCALE = (90, 70), 31.0
PART = (slice(11, 60), slice(20, 69))
EVERYTHING = (slice(None), slice(None))


def grid_at(angle: float) -> Grid:
    return Grid.make(SHAPE, SCALE, (36.3, 44.7), angle)


def on_image(patch: tuple[Box, np.ndarray], shape: tuple[int, int] = SHAPE) -> np.ndarray:
    image = np.zeros(shape, np.float32)
    image[patch[0]] = patch[1]
    return image


def blobs(seed: int, shape: tuple[int, int], share: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3)
    return noise > np.quantile(noise, 1 - share)


@pytest.mark.parametrize("angle", [0.0, 1e-9, -0.0004, 0.003, -0.03, 0.05, 0.13, -0.3, 1.2, np.pi / 2, -2.5])
@pytest.mark.parametrize("box", [EVERYTHING, PART])
def test_a_function_of_one_coordinate_is_exact_to_a_part_of_a_pixel(angle: float, box: Box) -> None:
    grid = grid_at(angle)
    part = grid if box is EVERYTHING else grid.crop(box)
    for values, of in ((part.x, part.of_x), (part.y, part.of_y)):
        assert of(lambda v: v).shape == part.shape and of(lambda v: v).dtype == np.float32
        assert np.abs(of(lambda v: v) - values).max() * SCALE < 1 / 16 + 1e-3
        assert np.abs(of(np.sin) - np.sin(values)).max() * SCALE < 1 / 16 + 1e-3


def test_the_grid_turns_clockwise() -> None:
    grid = grid_at(0.2)
    row, column = 17, 55
    point = np.array([[grid.x[row, column], grid.y[row, column]]], np.float64)
    np.testing.assert_allclose(grid.to_pixels(point), [[column, row]], atol=1e-4)
    assert grid.y[0, -1] < grid.y[0, 0] and grid.x[-1, 0] > grid.x[0, 0]


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0])
def test_a_box_has_all_pixels_of_its_ranges(angle: float) -> None:
    grid = grid_at(angle)
    inside = (np.abs(grid.x - 0.2) < 0.5) & (np.abs(grid.y + 0.3) < 0.4)
    box = grid.box((-0.3, 0.7), (-0.7, 0.1))
    assert inside.sum() > 500 and inside[box].sum() == inside.sum()
    assert grid.crop(grid.box((50, 60), (50, 60))).x.size == 0


def test_noise_in_a_box_is_part_of_the_whole() -> None:
    noise = Noise.draw(np.random.default_rng(1), SHAPE, 6.5)
    np.testing.assert_allclose(noise[PART], noise[EVERYTHING][PART], atol=1e-5)
    assert noise[EVERYTHING].shape == SHAPE and 0.7 < noise[EVERYTHING].std() < 1.3
    assert noise[5:5, 3:9].shape == (0, 6)


def test_noise_can_be_stretched() -> None:
    noise = Noise.draw(np.random.default_rng(2), SHAPE, 40.0)
    plain = np.asarray(noise.coarse.resize((33, 57), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(noise.stretched((57, 33)), plain, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.0])
def test_lines_are_blurred_by_a_gaussian(sigma: float) -> None:
    """One line inside of the image, one that leaves it, one that is drawn over both."""
    grid = grid_at(0.1)
    lines = [
        (np.array([[-0.5, -0.5], [0.2, 0.1], [0.4, 0.6]]), 0.06, 1.0),
        (np.array([[0.0, 0.9], [0.9, 0.9], [3.0, 0.5]]), 0.2, 0.6),
        (np.array([[0.3, -0.2], [0.3, 1.2]]), 0.01, 0.8),
    ]
    drawn = on_image(draw_lines(grid, lines, sigma))
    # The same on a larger image, where no line ends at the border of the part that is compared.
    larger = Grid.make((190, 170), SCALE, (86.3, 94.7), 0.1)
    sharp = on_image(draw_lines(larger, lines, 0.1), (190, 170))
    blurred = ndimage.gaussian_filter(sharp, sigma, truncate=int(3 * sigma + 0.5) / sigma)
    assert sharp.max() == 1
    np.testing.assert_allclose(drawn, blurred[50:140, 50:120], atol=1e-3)
    box, values = draw_lines(grid.crop(PART), lines, sigma)
    np.testing.assert_allclose(on_image((box, values), (49, 49)), drawn[PART], atol=1e-6)


def test_what_is_off_the_image_is_an_empty_patch() -> None:
    corner = np.array([[9.0, 9.0], [9.5, 9.0], [9.2, 9.9]])
    for box, values in (draw_lines(grid_at(0), [(corner, 0.1, 1.0)]), fill_polygon(grid_at(0), corner, 1.0)):
        layer = np.zeros(SHAPE, np.float32)
        assert values.size == 0 and layer[box].shape == values.shape


def test_trees_together_are_the_same_as_one_by_one() -> None:
    starts, angles, lengths = [(0.1, 0.2), (-0.3, 0.4)], [0.3, 2.0], [0.2, 0.3]
    rng = np.random.default_rng(5)
    alone = [line for root in zip(starts, angles, lengths) for line in tree(rng, *root, 0.02, 3)]
    rng = np.random.default_rng(5)
    together = grow_trees(starts, angles, lengths, [draw_numbers(rng, 3) for _ in starts], 0.02)
    # One line of the first generation, one pair of the second, two pairs of the third.
    assert [len(points) for points, _, _ in alone] == [5, 9, 9, 9] * 2
    for (points, *look), (others, *other_look) in zip(alone, together, strict=True):
        np.testing.assert_allclose(points, others)
        assert look == other_look
    trunk, pair = alone[0][0], alone[1][0]
    np.testing.assert_array_equal(pair[4], trunk[-1])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.7])
def test_whole_closes_opens_and_leaves_out_specks(share: float) -> None:
    for seed in range(4):
        mask = blobs(seed, (80, 61), share)
        smooth = ndimage.binary_opening(ndimage.binary_closing(mask, iterations=2), iterations=1)
        parts, count = ndimage.label(smooth)
        sizes = [np.sum(parts == number) for number in range(1, count + 1)]
        kept = [number for number, size in enumerate(sizes, 1) if size >= 0.02 * smooth.sum()]
        np.testing.assert_array_equal(whole(mask), np.isin(parts, kept))
    assert not whole(np.zeros((20, 30), bool)).any()


@pytest.mark.parametrize("shape", [(53, 41), (80, 61), (171, 128), (20, 61)])
def test_a_mask_is_resized_as_a_picture(shape: tuple[int, int]) -> None:
    for seed, share in enumerate((0.02, 0.3, 0.9)):
        mask = blobs(seed, (80, 61), share)
        picture = Image.fromarray(mask.astype(np.uint8) * 255)
        plain = np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR)) > 127
        np.testing.assert_array_equal(resize_mask(mask, shape), plain)
    assert resize_mask(np.zeros((8, 8), bool), shape).shape == shape


@pytest.mark.parametrize("angle", [0.0, 0.12, -0.12])
def test_each_lung_is_in_its_box(angle: float) -> None:
    """The lungs reach neither the border of their boxes nor each other."""
    patient = Patient.sample(stream(1, 2))
    chest = draw_chest(patient, Grid.make((340, 330), 120.0, (165.0, 178.0), angle), {"left": 0.06}, stream(1, 3))
    outlines = []
    for side, lung in chest.lungs.items():
        rim = np.ones(lung.outline.shape, bool)
        rim[1:-1, 1:-1] = False
        assert not lung.outline[rim].any() and lung.outline.max() == 1
        outlines.append(on_image((lung.box, lung.outline), chest.grid.shape))
        assert (chest.grid.x[outlines[-1] > 0] < 0).all() == (side == "right")
    outside = (outlines[0] == 0) & (outlines[1] == 0)
    assert not chest.air[outside].any() and not chest.markings[outside].any()
