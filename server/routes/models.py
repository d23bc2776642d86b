"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from fastapi import APIRouter, Request

from server.core import EngineState
from server.openai.models import Model, ModelList
from server.services import Services

router = APIRouter(tags=["models"])
ALIKE = ["GET", "HEAD"]


@router.api_route("/models", methods=ALIKE, include_in_schema=False)
@router.api_route("/v1/models/", methods=ALIKE, include_in_schema=False)
@router.head("/v1/models", include_in_schema=False)
@router.get("/v1/models")
async def list_models(request: Request) -> ModelList:
    """The models that this server answers for: one, under all of its names."""
    services: Services = request.app.state.services
    return ModelList(data=[_model(services, name) for name in services.model_names])


@router.api_route("/models/{model_id:path}", methods=ALIKE, include_in_schema=False)
@router.head("/v1/models/{model_id:path}", include_in_schema=False)
@router.get("/v1/models/{model_id:path}")
async def get_model(request: Request, model_id: str) -> Model:
    """One model by its name; names may contain slashes."""
    services: Services = request.app.state.services
    services.require_model(model_id)
    return _model(services, model_id)


def _model(services: Services, name: str) -> Model:
    engine = services.engine
    length = engine.max_model_len if engine is not None and engine.state is EngineState.READY else None
    return Model(id=name, created=services.created, max_model_len=length)
