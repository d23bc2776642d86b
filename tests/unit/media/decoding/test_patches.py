"""Patches are those of transformers' Qwen2-VL processors, for pictures and for clips."""

import numpy as np
import pytest

from server.media.decoding.patches import cut_into, measure, patchify
from server.media.workers.channel import Growing, sealed_array


def noise(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(frames * height * width).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (56, 84), (280, 140), (28, 2800)])
def test_patches_of_a_picture_are_those_of_transformers(height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    frames = noise(1, height, width)
    processor = processing.Qwen2VLImageProcessor(do_resize=False, do_rescale=False, do_normalize=False)
    expected = processor(torch.from_numpy(frames[0]).permute(2, 0, 1), return_tensors="pt")
    patches, grid = patchify(frames)
    assert [list(grid)] == expected["image_grid_thw"].tolist()
    assert patches.dtype == np.uint8
    assert np.array_equal(patches, expected["pixel_values"].numpy())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (56, 84), (140, 56), (28, 700)])
def test_patches_of_a_clip_are_those_of_transformers(count: int, height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    processing = pytest.importorskip("transformers.models.qwen2_vl.video_processing_qwen2_vl")
    frames = noise(count, height, width)
    processor = processing.Qwen2VLVideoProcessor(
        do_resize=False, do_rescale=False, do_normalize=False, do_sample_frames=False
    )
    expected = processor(torch.from_numpy(frames).permute(0, 3, 1, 2), return_tensors="pt")
    patches, grid = patchify(frames)
    assert [list(grid)] == expected["video_grid_thw"].tolist()
    assert np.array_equal(patches, expected["pixel_values_videos"].numpy())


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96)])
def test_patches_may_have_another_side(height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    frames = noise(1, height, width)
    processor = processing.Qwen2VLImageProcessor(do_resize=False, do_rescale=False, do_normalize=False, patch_size=16)
    expected = processor(torch.from_numpy(frames[0]).permute(2, 0, 1), return_tensors="pt")
    patches, grid = patchify(frames, patch=16)
    assert [list(grid)] == expected["image_grid_thw"].tolist()
    assert np.array_equal(patches, expected["pixel_values"].numpy())


def test_patches_of_one_pixel_are_the_pixels() -> None:
    """For models whose own processor cuts; any size is right for those."""
    frames = noise(1, 31, 17)
    patches, grid = patchify(frames, patch=1)
    assert grid == (1, 31, 17)
    assert np.array_equal(patches.reshape(frames.shape), frames)


def test_patches_stand_block_by_block() -> None:
    rgb = np.zeros((1, 56, 56, 3), np.uint8)
    for row in range(4):
        for column in range(4):
            rgb[0, row * 14 : row * 14 + 14, column * 14 : column * 14 + 14] = row * 4 + column
    patches, grid = patchify(rgb)
    assert grid == (1, 4, 4)
    assert patches.shape == (16, 1176)
    assert patches[:, 0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert (patches == patches[:, :1]).all()


def test_a_patch_is_channel_then_frame_then_rows() -> None:
    frames = noise(2, 28, 28)
    first = patchify(frames)[0][0].reshape(3, 2, 14, 14)
    for number in range(2):
        assert np.array_equal(first[:, number], frames[number, :14, :14].transpose(2, 0, 1))


def test_an_odd_number_of_frames_repeats_the_last() -> None:
    frames = noise(3, 56, 28)
    assert np.array_equal(patchify(frames)[0], patchify(np.concatenate([frames, frames[-1:]]))[0])


def test_views_of_any_memory_order_are_taken() -> None:
    frames = noise(4, 56, 28)
    for view in (frames[::-1], frames[:, ::-1], frames[:, :, ::-1], frames[::2], frames.transpose(0, 2, 1, 3)):
        assert np.array_equal(patchify(view)[0], patchify(np.ascontiguousarray(view))[0])


def test_patches_go_into_shared_memory_one_after_the_other() -> None:
    first, second = noise(1, 28, 84), noise(2, 56, 56)
    memory = Growing()
    sizes = [cut_into(memory, frames, 14).size for frames in (first, second)]
    content = sealed_array(memory.seal(), sum(sizes))
    assert np.array_equal(content[: sizes[0]], patchify(first)[0].ravel())
    assert np.array_equal(content[sizes[0] :], patchify(second)[0].ravel())
    memory.close()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((28, 28, 3), np.uint8),
        np.zeros((2, 28, 28, 4), np.uint8),
        np.zeros((2, 28, 28, 3), np.float32),
        np.zeros((2, 28, 29, 3), np.uint8),
        np.zeros((0, 28, 28, 3), np.uint8),
    ],
)
def test_other_shapes_are_a_programming_error(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected|multiples"):
        measure(wrong, 14)
