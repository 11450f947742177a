"""The tokens of a minute that the runs of a key share: real ledgers, one fake clock."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchfox.core.tokens import WINDOW_S, Tokens
from batchfox.key_ledger import KeyLedger
from batchfox.token_share import TokenShare

LOWEST = 1_000.0


class Run:
    """Sends all it may, as soon as it may; tells the ledger once a second."""

    def __init__(self, name: str, per_minute: float, now: float, thread: ThreadPoolExecutor) -> None:
        self.ledger = KeyLedger("sk-key", "http://api", None)
        self.now = now
        self.tokens = Tokens(per_minute)
        self.share = TokenShare(self.ledger, thread, self.tokens, account=name, now=lambda: self.now)
        self.sent: list[tuple[float, float]] = []

    def second(self, now: float, draws: random.Random) -> None:
        for tenth in range(10):
            self.now = now + tenth / 10
            while self.tokens.fits("m", amount := float(draws.randint(5, 30)), self.now):
                key = len(self.sent).to_bytes(8, "big")
                self.tokens.take(key, "m", amount)
                self.tokens.leave(key, self.now)
                self.sent.append((self.now, amount))
        asked = self.share._ask(self.share.per_minute, self.tokens.taken(self.now), self.share._share, self.now)
        self.share._apply(*asked)


def test_all_runs_of_a_key_keep_the_lowest_limit_in_every_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    draws, sent = random.Random(1), list[tuple[float, float]]()
    live: dict[str, Run] = {}
    joins = {0: ("a", 3 * LOWEST), 90: ("b", LOWEST), 130: ("c", 2 * LOWEST), 260: ("d", LOWEST)}
    with ThreadPoolExecutor(1) as thread:
        for second in range(400):
            now = 5_000.0 + second
            if second in joins:
                name, per_minute = joins[second]
                live[name] = Run(name, per_minute, now, thread)
            if second == 200:  # it ends
                live["b"].share.leave()
                live["b"].ledger.leave()
            if second == 220:  # dies: its lock goes, its row stays
                live["c"].ledger.path.with_name(live["c"].ledger.name).unlink()
            if second in (200, 220):
                sent += live.pop("b" if second == 200 else "c").sent
            for run in live.values():
                run.second(now, draws)
            if second == 90:
                assert sum(amount for at, amount in live["a"].sent if at > now - 59) > 2.9 * LOWEST, "alone"
                live["a"].sent.clear()  # until now it did not know of b's limit, which b waits for
    last = live["d"].sent
    sent += live["a"].sent + last
    sent.sort()
    for at, _ in sent:
        if (at > 5_000.0 + 90 and at < 5_000.0 + 200) or at > 5_000.0 + 320:
            in_minute = sum(amount for then, amount in sent if at - WINDOW_S < then <= at)
            assert in_minute <= LOWEST, at
    # Each has its part, and a newcomer gets it within the minute that the others' tokens take to count no more.
    for run in (live["a"], live["d"]):
        assert sum(amount for at, amount in run.sent if at > 5_000.0 + 340) > 0.9 * LOWEST / 2
    assert live["d"].tokens.per_minute == LOWEST / 2
