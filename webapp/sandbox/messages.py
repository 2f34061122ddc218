"""The endpoints beside the batches that a client needs: the models, and counting tokens.

The app calls a method per endpoint with the request and its caller; each returns a response or raises.
"""

from __future__ import annotations

from werkzeug.wrappers import Request, Response

from .access import Caller
from .body import InvalidJson, loads
from .checks import check_params
from .faults import Fault
from .models import MODELS, find_model, model_info
from .replies import ApiError, TooLarge, invalid, json_response, not_found
from .tokens import measure

_LARGEST_BODY = 32 * 1024 * 1024
#: What counting takes; anything else of a Messages request, max_tokens too, is refused.
_COUNTED = frozenset(
    {
        *("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"),
        *("cache_control", "mcp_servers", "speed", "user_profile_id"),
    }
)


class ModelRoutes:
    """The endpoints ``/v1/models`` and ``/v1/messages/count_tokens``."""

    def list_models(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        ids = [model.id for model in MODELS]
        try:
            limit = int(request.args.get("limit", "20"))
            start = ids.index(request.args["after_id"]) + 1 if "after_id" in request.args else 0
            end = ids.index(request.args["before_id"]) if "before_id" in request.args else None
        except ValueError as error:
            raise invalid(f"limit, after_id, before_id: {error}") from None
        if not 1 <= limit <= 1000:
            raise invalid("limit: Input should be between 1 and 1000")
        if end is not None:
            start, has_more = max(0, end - limit), end - limit > 0
        else:
            end = min(start + limit, len(ids))
            has_more = end < len(ids)
        page = MODELS[start:end]
        return json_response(
            {
                "data": [model_info(model) for model in page],
                "has_more": has_more,
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
            }
        )

    def retrieve_model(self, request: Request, caller: Caller, faults: list[Fault], model_id: str) -> Response:
        model = find_model(model_id)
        if model is None:
            raise not_found(f"model: {model_id}")
        return json_response(model_info(model))

    def count_tokens(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        if (request.content_length or 0) > _LARGEST_BODY:
            raise TooLarge
        try:
            params = loads(request.get_data())
        except InvalidJson as error:
            raise invalid(f"The request body is not valid JSON: {error}") from None
        if not isinstance(params, dict):
            raise invalid("Input should be a valid dictionary or object to extract fields from")
        for name in params:
            if name not in _COUNTED:
                raise invalid(f"{name}: Extra inputs are not permitted")
        # Counting asks for no max_tokens; any that is right for every model lets the other checks speak.
        problem = check_params({"max_tokens": 1} | params, caller.version, caller.betas, 0)
        if problem is not None:
            raise ApiError(404 if problem.type == "not_found_error" else 400, problem.type, problem.message)
        model = find_model(params["model"])
        assert model is not None
        return json_response({"input_tokens": measure(params, model).tokens})
