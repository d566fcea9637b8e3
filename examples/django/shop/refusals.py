"""What the buffer refuses is the user's to read: it names the thing, the fact and what is allowed."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

import buffer_pipeline as buffer


class RefusalMiddleware:
    """Answers 409 to a refusal. It has left `atomic()` by then, so nothing of the request was written."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, _request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, buffer.Refused | buffer.InvalidInput):
            return HttpResponse(f"{error}\n", status=409, content_type="text/plain; charset=utf-8")
        return None
