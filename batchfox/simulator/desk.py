"""The simulator's own endpoints, outside the API: the book and the controls; and the API's small free ones."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from batchfox.simulator.checks import parse
from batchfox.simulator.refusal import invalid
from batchfox.simulator.settings import SettingsError
from batchfox.simulator.wire import reply
from batchfox.simulator.world import World

# What the API shows as the limit of an account that has none.
_UNLIMITED_USD = 100_000_000


class Desk:
    """The book, the controls, the models, the prices, the balance."""

    def __init__(self, world: World) -> None:
        self._world = world

    def book(self, *, has_entries: bool = True) -> dict[str, Any]:
        """The totals, and with them every billed submit and every kept upload, in order."""
        now = self._world.now()
        totals = self._world.book.totals(now)
        if not has_entries:
            return {"totals": totals}
        uploads = [msgspec.to_builtins(upload) for upload in self._world.shelf.uploads()]
        return {"totals": totals, "entries": self._world.book.entries(now), "uploads": uploads}

    async def get_book(self, request: web.Request) -> web.Response:
        """`GET /__book`; `?entries=0` for the totals alone."""
        return reply(self.book(has_entries=request.query.get("entries", "1") not in ("0", "false")))

    async def get_control(self, _: web.Request) -> web.Response:
        """`GET /__control`: the settings as they are."""
        return reply(msgspec.to_builtins(self._world.settings))

    async def post_control(self, request: web.Request) -> web.Response:
        """`POST /__control`: changes the settings that are named; answers with all of them."""
        changes = parse(await request.read())
        try:
            return reply(msgspec.to_builtins(self._world.change(changes)))
        except SettingsError as error:
            raise invalid(str(error), status=400) from error

    async def get_models(self, _: web.Request) -> web.Response:
        """What this key may use."""
        return reply(self._world.catalogue.listed())

    async def get_pricing(self, _: web.Request) -> web.Response:
        """The price list; needs no key."""
        return reply(self._world.catalogue.priced())

    async def get_subscription(self, _: web.Request) -> web.Response:
        """The balance, what is spent included."""
        balance = self._world.settings.balance
        limit = _UNLIMITED_USD if balance is None else balance
        said = {
            "object": "billing_subscription",
            "has_payment_method": True,
            "soft_limit_usd": limit,
            "hard_limit_usd": limit,
            "system_hard_limit_usd": limit,
            "access_until": 0,
        }
        return reply(said)

    async def get_usage(self, _: web.Request) -> web.Response:
        """What is spent, in hundredths; reservations of unfinished tasks count as spent."""
        return reply({"object": "list", "total_usage": round(self._world.book.spent(self._world.now()) * 100, 6)})
