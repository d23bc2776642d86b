"""What a running server consists of; `app.create_app` wires it together and routes find it on the app."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio

from server.admission.bodies import BodyBudget
from server.admission.gate import Gate
from server.admission.key_watch import KeyWatch
from server.admission.keys import KeyRing
from server.admission.presence import Presence
from server.core import EngineState, Reading
from server.engine.supervisor import Supervisor
from server.errors import EngineNotReady, ModelNotFound
from server.inference import Inference
from server.media.prepare import Preparer
from server.settings import Settings

READING_THREADS = 1
"""At once. They share the interpreter with the event loop, which then waits for its turn."""


@dataclass(slots=True)
class Services:
    """Everything that routes may use. `engine` and `inference` appear once the model is up."""

    settings: Settings
    keys: KeyRing
    gate: Gate
    bodies: BodyBudget
    model_names: list[str]
    version: str = ""
    engine_version: str = ""
    fingerprint: str = ""
    """The same for as long as the same requests get the same answers."""
    phase: str = "starting"
    engine: Supervisor | None = None
    inference: Inference | None = None
    preparer: Preparer | None = None
    template_words: frozenset[str] = frozenset()
    """Those in the model's chat template."""
    presence: Presence = field(default_factory=Presence)
    reading: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(READING_THREADS))
    """For large bodies."""
    created: int = field(default_factory=lambda: int(time.time()))

    key_watch: KeyWatch = field(init=False)

    def __post_init__(self) -> None:
        self.key_watch = KeyWatch(self.keys, self.presence)

    def readings(self) -> list[Reading]:
        """How it is with those who come in, for /metrics."""
        return [*self.gate.readings(), *self.key_watch.readings()]

    def not_ready_because(self) -> str | None:
        """Why no request can be taken at this moment; None when all is well."""
        if self.gate.draining:
            return "draining"
        if self.inference is None or self.engine is None:
            return self.phase
        if self.engine.state is not EngineState.READY:
            return f"engine {self.engine.state.value}"
        return None

    def require_inference(self) -> Inference:
        """The way to the engine.

        Raises:
            EngineNotReady: the model is not up yet.
        """
        if self.inference is None:
            raise EngineNotReady(f"The server is starting ({self.phase}); please try again.")
        return self.inference

    def require_model(self, name: str | None) -> None:
        """Accept a model's name; none at all means the one that is served.

        Raises:
            ModelNotFound: this server does not serve it.
        """
        if name is not None and name not in self.model_names and not self.settings.accept_any_model:
            served = ", ".join(self.model_names)
            raise ModelNotFound(
                f"The model '{name[:100]}' does not exist here; this server has {served}.", param="model"
            )
