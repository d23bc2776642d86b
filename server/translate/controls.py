"""Controls of a media part: beside its file or, as LMDeploy's clients write them, inside of the URL's object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from server.errors import BadRequest
from server.protocol.content import ClipControls, PageControls, PictureControls, PixelControls

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
    found = {name: getattr(place, name) for name in CONTROLS & place.model_fields_set}
    found = {name: value for name, value in found.items() if value is not None}
    for name, value in found.items():
        beside = getattr(part, name)
        if beside is not None and beside != value:
            path = f"{here}.{field}.{name}"
            raise BadRequest(f"'{path}' and '{here}.{name}' say different things: leave one of them out.", param=path)
    if not found:
        return Controlled(part, here, field)
    return Controlled(part.model_copy(update=found), here, field, frozenset(found))
