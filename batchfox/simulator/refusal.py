"""A refusal: no task is made of what was sent. One class for every row of the API's error table."""

from __future__ import annotations

from collections.abc import Mapping


class RefusalError(Exception):
    """The answer to a refused call: HTTP status, the error's `type` (here `kind`), `code` and message.

    `plain` replaces the error object by that text, as the gateway in front of the API does.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        plain: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.plain = plain

    def body(self) -> dict[str, dict[str, str]]:
        """The error object as the API writes it; `code` is left out where there is none."""
        said = {"message": self.message, "type": self.kind}
        return {"error": said if self.code is None else said | {"code": self.code}}


def invalid(message: str, code: str = "invalid_param", status: int = 422) -> RefusalError:
    """The row is wrong: never to be sent again as it is."""
    return RefusalError(status, "invalid_request_error", message, code=code)
