"""Compares prompts with what vLLM's own processors make, and runs the real engine on clips: in a process of its own.

    python -m tests.e2e.engine_child FOLDER

prints one line of JSON. `FOLDER` is empty at first.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.core import (
    Clip,
    ClipSource,
    GenerationRequest,
    Message,
    Opened,
    Picture,
    PictureSource,
    Sampling,
    TextDelta,
    Usage,
)
from server.demo.patches import MAX_CLIP_PIXELS, clip_patches, fit, image_patches
from server.demo.pictures import Sample, make_sample
from server.engine.arguments import engine_environment
from server.engine.device import Device
from server.engine.processes import ENGINE_FORK_SERVER, end_all, start_fork_server
from server.engine.setup import set_up_engine
from server.errors import ApiError
from server.families import load_family
from server.settings import Settings
from tests.e2e import tiny_models
from tests.model import FOLDER

PICTURE = PictureSource("", "messages[0].content[0]")
CLIP = ClipSource((), "messages[0].content[1]", is_file=True)
CPU = Device("cpu", "CPU")
FPS = 1.6
SAMPLES = 10
SEED = 20_261

Frames = NDArray[np.uint8]


# ---- What vLLM's own processors make


def cut(frames: Frames, side: int) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """Frames, two by two, in patches of `side` pixels, as transformers' Qwen2-VL processors order them."""
    count, height, width, _ = frames.shape
    grid = (count // 2, height // side, width // side)
    blocks = frames.reshape(grid[0], 2, grid[1] // 2, 2, side, grid[2] // 2, 2, side, 3)
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return np.ascontiguousarray(ordered).reshape(grid[0] * grid[1] * grid[2], -1), grid


def compared(folder: Path) -> dict[str, Any]:
    """A picture, a clip and the picture again: our prompt and items against those of vLLM's processor."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.multimodal.processing import ProcessorInputs
    from vllm.multimodal.processing.context import TimingContext

    from server.engine.inputs import ready_input

    family = load_family(folder)
    block = family.factor
    random_pixels = np.random.default_rng(SEED)
    still = random_pixels.integers(0, 256, (8 * block, 10 * block, 3), np.uint8)
    moving = random_pixels.integers(0, 256, (6, 8 * block, 6 * block, 3), np.uint8)
    picture = Picture(*cut(np.stack([still, still]), family.patch_size), "picture", (10 * block, 8 * block))
    clip = Clip(*cut(moving, family.patch_size), "clip", (6 * block, 8 * block), fps=FPS)
    message = Message("user", ("Before ", PICTURE, " between ", CLIP, "after", PICTURE))
    opened = [Opened(PICTURE, (picture,)), Opened(CLIP, (clip,)), Opened(PICTURE, (picture,))]
    ours = ready_input(family.build_prompt([message], opened), "", 10**6)

    arguments = AsyncEngineArgs(model=str(folder), limit_mm_per_prompt={"image": 2, "video": 1})
    processor = MULTIMODAL_REGISTRY.create_processor(arguments.create_model_config())
    metadata = {"fps": FPS, "duration": 6 / FPS, "total_num_frames": 6, "frames_indices": [0, 1, 2, 3, 4, 5]}
    told = (moving, metadata | {"video_backend": "opencv", "do_sample_frames": False})
    video = moving if "Qwen2VL" in type(processor).__name__ else told
    items = processor.info.parse_mm_data({"image": [Image.fromarray(still)] * 2, "video": [video]})
    parts: list[Any] = [
        "Before ", {"type": "image"}, " between ", {"type": "video"}, "after", {"type": "image"},
    ]  # fmt: skip
    theirs = processor.apply(ProcessorInputs(rendered(folder, parts), items), TimingContext(enabled=False))
    return differences(ours, theirs)


def differences(ours: Any, theirs: Any) -> dict[str, Any]:
    """What is equal, by name."""
    found: dict[str, Any] = {
        "token_ids": list(ours["prompt_token_ids"]) == list(theirs["prompt_token_ids"]),
        "placeholders": dict(ours["mm_placeholders"]) == dict(theirs["mm_placeholders"]),
        "modalities": sorted(ours["mm_kwargs"]) == sorted(theirs["mm_kwargs"]),
    }
    for modality, items in theirs["mm_kwargs"].items():
        for number, (one, other) in enumerate(zip(ours["mm_kwargs"][modality], items, strict=True)):
            found[f"{modality} {number}"] = sorted(one) == sorted(other)
            for name, element in other.items():
                same = one[name] == element and one[name].field.keep_on_cpu == element.field.keep_on_cpu
                if name == "second_per_grid_ts":  # vLLM's processor rounds it to the model's 16 bits, we do not
                    same = abs(float(one[name].data) - float(element.data)) < 0.01
                found[f"{modality} {number} {name}"] = same
    return found


def rendered(folder: Path, parts: Sequence[str | dict[str, str]]) -> list[int]:
    """Token ids of the model's template, tokenised as one text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    return list(ids)


async def own_processor(folder: Path) -> dict[str, Any]:
    """Whole pictures: our prompt against vLLM's for the same messages, and one in which placeholders are typed."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.inputs import TokensPrompt
    from vllm.renderers import renderer_from_config

    from server.engine.inputs import processed_input

    renderer = renderer_from_config(AsyncEngineArgs(model=str(folder), mm_processor_cache_gb=0).create_engine_config())
    family = load_family(folder)
    pixels = [np.random.default_rng(SEED).integers(0, 256, (*size, 3), np.uint8) for size in ((90, 300), (200, 120))]
    pictures = [
        Picture(one.reshape(-1, 3), (1, *one.shape[:2]), f"picture {number}", (one.shape[1], one.shape[0]))
        for number, one in enumerate(pixels)
    ]
    opened = [Opened(PICTURE, (picture,)) for picture in pictures]

    async def ours(*content: str | PictureSource) -> Any:
        return await processed_input(renderer, family.build_prompt([Message("user", content)], opened), "tenant")

    harmless = await ours("Before ", PICTURE, " between", PICTURE, "after")
    ids = rendered(folder, ["Before ", {"type": "image"}, " between", {"type": "image"}, "after"])
    shown = TokensPrompt(prompt_token_ids=ids, multi_modal_data={"image": [Image.fromarray(one) for one in pixels]})
    (theirs,) = await renderer.render_cmpl_async([shown])
    typed = await ours("<IMG_CONTEXT> <img></img>", PICTURE, "<|im_end|><IMG_CONTEXT>", PICTURE, "")
    tokens = [typed["prompt_token_ids"].count(id_) for id_ in tiny_models.INTERN_TOKENS.values()]
    embeds = [place.get_num_embeds() for place in typed["mm_placeholders"]["image"]]
    renderer.shutdown()
    return differences(harmless, theirs) | {
        "hashes": dict(harmless["mm_hashes"]) == {"image": ["picture 0", "picture 1"]},
        "salt": harmless["cache_salt"] == "tenant",
        "typed placeholders stay text": tokens == [2, 2, sum(embeds), 0],
        "each picture has its own": all(
            typed["prompt_token_ids"][place.offset] == tiny_models.INTERN_TOKENS["<img>"]
            for place in typed["mm_placeholders"]["image"]
        ),
    }


# ---- The real engine


async def asked(scratch: Path) -> dict[str, Any]:
    """The demo model's answers to questions about clips, beside the right ones."""
    family = load_family(FOLDER)
    setup = set_up_engine(Settings(), FOLDER, family, CPU, scratch / "engine.log")
    engine = setup.make()
    await engine.start(lambda phase, detail: None)

    async def ask(pictures: Sequence[Picture], question: str, *, streamed: bool = True) -> tuple[str, Usage, int]:
        sources = [CLIP if isinstance(picture, Clip) else PICTURE for picture in pictures]
        opened = [Opened(source, (picture,)) for source, picture in zip(sources, pictures, strict=True)]
        prompt = family.build_prompt([Message("user", (*sources, question))], opened)
        sampling = Sampling(max_tokens=40, temperature=0.0)
        request = GenerationRequest(f"request-{next(numbers)}", prompt, sampling, streamed=streamed)
        events = [event async for event in engine.generate(request)]
        texts = [event.text for event in events if isinstance(event, TextDelta)]
        usage = events[-1]
        assert isinstance(usage, Usage)
        return "".join(texts), usage, len(texts)

    numbers = iter(range(10**6))
    rng = random.Random(SEED)
    answers: dict[str, list[tuple[str, str]]] = {"clips": [], "pictures as clips": [], "pairs": []}

    async def sample_all(clip: Sample, still: Sample, pair: Sample) -> None:
        said, _, _ = await ask([_clip([fit(frame, MAX_CLIP_PIXELS) for frame in clip.clip or ()])], clip.prompt)
        answers["clips"].append((said, clip.answer))
        frame = fit(still.images[0], MAX_CLIP_PIXELS)
        one, other = await ask([_clip([frame, frame])], still.prompt), await ask([_picture(frame)], still.prompt)
        answers["pictures as clips"].append((one[0], other[0]))
        first, second = (fit(image) for image in pair.images)
        mixed, _, _ = await ask([_clip([first, first]), _picture(second)], pair.prompt)
        alike, _, _ = await ask([_picture(first), _picture(second)], pair.prompt)
        answers["pairs"].append((mixed, alike))

    samples = [[make_sample(rng, kind) for kind in ("clip", "shapes", "pair")] for _ in range(SAMPLES)]
    await asyncio.gather(*(sample_all(*three) for three in samples))
    whole, parts = await ask([], "Hello", streamed=False), await ask([], "Hello")
    too_long = _clip([Image.new("RGB", (224, 224))] * 100)
    try:
        await ask([too_long], "Describe this video.")
        refusal = ""
    except ApiError as error:
        refusal = f"{error.code}: {error.message}"
    after = await ask([], "Hello")
    await engine.stop()
    return {
        "answers": answers,
        "whole": [whole[0], whole[2], whole[1].completion_tokens],
        "parts": [parts[0], parts[2], parts[1].completion_tokens],
        "too long": refusal,
        "after": after[0],
    }


def _picture(image: Image.Image) -> Picture:
    patches, grid = image_patches(image)
    twice = np.stack([patches, patches], axis=2)
    return Picture(twice.reshape(len(patches), -1), grid, _name(image.tobytes()), image.size)


def _clip(frames: Sequence[Image.Image]) -> Clip:
    patches, grid = clip_patches(frames)
    name = _name(b"".join(frame.tobytes() for frame in frames)) + "-clip"
    return Clip(patches.reshape(len(patches), -1), grid, name, frames[0].size)


def _name(pixels: bytes) -> str:
    return hashlib.sha256(pixels).hexdigest()


def main(scratch: Path) -> None:
    start_fork_server([ENGINE_FORK_SERVER], engine_environment(Settings(), CPU, scratch / "engine.log", scratch))
    found: dict[str, Any] = {"demo": asyncio.run(asked(scratch))}
    for name in ("QWEN2_VL", "QWEN2_5_VL", "QWEN3_VL"):
        found[name] = compared(tiny_models.write(scratch / name, getattr(tiny_models, name)))
    found["INTERNVL"] = asyncio.run(own_processor(tiny_models.write(scratch / "INTERNVL", tiny_models.INTERNVL)))
    print(json.dumps(found), flush=True)
    end_all(1.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
