"""Health for people, balancers and Kubernetes, and /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from server.services import Services
from server.telemetry import metrics

router = APIRouter(tags=["health"])


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live")
async def live() -> JSONResponse:
    """200 as long as the process runs its event loop."""
    return JSONResponse({"status": "live"})


@router.head("/health/ready", include_in_schema=False)
@router.head("/health", include_in_schema=False)
@router.get("/health/ready")
@router.get("/health")
async def ready(request: Request) -> JSONResponse:
    """200 when requests are taken; 503 with the reason while starting, draining or dead."""
    services: Services = request.app.state.services
    reason = services.not_ready_because()
    if reason is None:
        return JSONResponse({"status": "ready", "model": services.model_names[0]})
    return JSONResponse({"status": "not ready", "reason": reason}, status_code=503, headers={"retry-after": "5"})


@router.post("/ping", include_in_schema=False)
@router.get("/ping", include_in_schema=False)
async def ping(request: Request) -> Response:
    """200 with nothing in it when requests are taken, as SageMaker and vLLM's users ask."""
    services: Services = request.app.state.services
    return Response(status_code=200 if services.not_ready_because() is None else 503)


@router.get("/version")
async def version(request: Request) -> JSONResponse:
    """The version of this server, and of the engine below it."""
    services: Services = request.app.state.services
    engine = {"name": services.settings.engine, "version": services.engine_version}
    return JSONResponse({"version": services.version, "engine": engine})


@router.get("/metrics")
async def prometheus(request: Request) -> Response:
    """Prometheus metrics, the server's and the engine's."""
    services: Services = request.app.state.services
    metrics.READY.set(services.not_ready_because() is None)
    return Response(metrics.exposition(), headers={"content-type": metrics.CONTENT_TYPE})
