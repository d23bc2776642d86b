"""Controls of a media part: beside its file or, as LMDeploy's clients write them, inside of the URL's object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from server.errors import BadRequest
from server.openai.media.content import ClipControls, PageControls, PictureControls, PixelControls

P = TypeVar("P", bound=PixelControls)
P_co = TypeVar("P_co", bound=PixelControls, covariant=True)

CONTROLS = frozenset().union(*(kind.model_fields for kind in (PictureControls, ClipControls, PageControls)))
"""The names of all controls there are."""


@dataclass(frozen=True, slots=True)
class Controlled(Generic[P_co]):
    """A part with all of its controls, and where each of them was written."""

    part: P_co
    here: str
    """The part's place in the request."""
    field: str
    """Of the part, in which the file is named."""
    inside: frozenset[str] = frozenset()
    """Controls that stand in the object there."""

    def path(self, control: str) -> str:
        """Where a control was written, such as `messages[0].content[1].video_url.fps`."""
        return f"{self.here}.{self.field}.{control}" if control in self.inside else f"{self.here}.{control}"


def controlled(part: P, place: object, here: str, field: str) -> Controlled[P]:
    """The part, with the controls that stand inside of `place`, what its `field` holds, taken over.

    Raises:
        BadRequest: one is given in both places, with different values.
    """
    if not isinstance(place, PixelControls):
        return Controlled(part, here, field)
    # Of fields alone: beside them may stand what asks for nothing, such as an empty `fps` of a picture.
    found = {name: getattr(place, name) for name in CONTROLS & type(place).model_fields.keys()}
    found = {name: value for name, value in found.items() if value is not None}
    for name, value in found.items():
        beside = getattr(part, name)
        if beside is not None and beside != value:
            raise _contradiction(f"{here}.{field}.{name}", f"{here}.{name}")
    if not found:
        return Controlled(part, here, field)
    return Controlled(part.model_copy(update=found), here, field, frozenset(found))


def frames_wanted(clip: Controlled[ClipControls]) -> int | None:
    """How many frames of a clip file are wanted, under either of the two names.

    Raises:
        BadRequest: they say different things.
    """
    own, other = clip.part.nframes, clip.part.num_frames
    if own is not None and other is not None and own != other:
        raise _contradiction(clip.path("num_frames"), clip.path("nframes"))
    return other if own is None else own


def _contradiction(one: str, other: str) -> BadRequest:
    return BadRequest(f"'{one}' and '{other}' say different things: leave one of them out.", param=one)
