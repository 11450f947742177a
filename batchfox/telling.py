"""What happens when a run has ended: those named in `[notify]` are told, and the commands of `[hooks]` are run. That it
has cost more than `notify.spend` is told while it runs.

Neither changes how the run ended. What goes wrong here is told on stderr, without addresses and without the key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from batchfox.core.job import Job
from batchfox.core.notice import (
    HIDDEN,
    Notice,
    is_web_address,
    name_in,
    notice_of,
    notice_of_spend,
    warning,
    without_secret,
)
from batchfox.core.secret import Secret
from batchfox.errors import BatchfoxError, JobError, UserError
from batchfox.hook import Hook
from batchfox.jobfile import secret_of, value_named
from batchfox.summary import Summary

# Tries, and between them it waits 1, 2 s.
TRIES = 3
FIRST_WAIT_S = 1.0
TRY_S = 20.0
NO_HOOKS = frozenset({5, 129, 130, 143})

T = TypeVar("T")


class After:
    """What follows a run of this job. Made before it, so that what cannot be is refused before anything is sent."""

    def __init__(self, job: Job) -> None:
        """Raises `JobError`, `UserError`: an address that is none, a variable that is not set, no Apprise."""
        self._job = job
        self._secret = secret_of(job)
        notify = job.notify
        self._webhook = None if notify.webhook is None else _resolve("notify.webhook", notify.webhook)
        if self._webhook is not None and not is_web_address(self._webhook):
            raise JobError(f"notify.webhook: {notify.webhook} holds no http(s) URL without a user name")
        urls = [_resolve("notify.urls", url) for url in notify.urls]
        hidden = [url for url in [self._webhook or "", *urls] if without_secret(url) != url]
        self._addresses = list(map(Secret, hidden))
        self._notify = _apprise(urls, notify.urls) if urls else None
        self._spend_teller: threading.Thread | None = None
        # Was it told, in this execution or before, that the run has passed `notify.spend`?
        self.is_spend_told = False

    def see_spend(self, spent: float, running: Callable[[], dict[str, Any]]) -> bool:
        """What the run has spent by now, in credits. Is that the moment at which it passes `notify.spend`? It is told,
        then, in a thread of its own, which holds nothing up. `running`: what the summary of the run would say now."""
        most = self._job.notify.spend
        if most is None or self.is_spend_told or self._spend_teller is not None or spent <= most:
            return False
        told = self._secret.hide_in({"job": self._job.name, "exit_status": None, **_placed(running())})
        notice = notice_of_spend(self._job.name, told, most)

        def tell() -> None:
            self._tell(notice, told)
            self.is_spend_told = True

        self._spend_teller = threading.Thread(target=tell, name="tell", daemon=True)
        self._spend_teller.start()
        return True

    def closes(self) -> bool:
        """The run is about to end. Is it told by then that `notify.spend` was passed, or is that under way?"""
        return self.is_spend_told or self._spend_teller is not None

    def warn(self, title: str, text: str) -> None:
        """Tells of what is no run. Returns when that is done."""
        told = self._secret.hide_in(
            _placed({"job": self._job.name, "exit_status": None, "reason": text, "output": self._job.output.path})
        )
        self._tell(warning(self._job.name, title, told), told)

    async def ended(self, summary: Summary) -> None:
        """The run came to an end."""
        await self._follow(summary.to_dict())

    async def failed(self, error: BaseException) -> None:
        """The run could not start, or broke off."""
        status = error.exit_status if isinstance(error, BatchfoxError) else 1
        reason = str(error) if isinstance(error, BatchfoxError) else f"a bug: {type(error).__name__}"
        await self._follow({"exit_status": status, "reason": reason, "run_id": None, "output": self._job.output.path})

    async def _follow(self, summary: dict[str, Any]) -> None:
        summary = self._secret.hide_in({"job": self._job.name, **summary})
        told = _placed(summary)
        notice = notice_of(self._job.name, told, self._job.notify, is_spend_told=self.closes())
        if self._spend_teller is not None and summary["exit_status"] not in NO_HOOKS:
            await _in_thread(self._spend_teller.join)
        if notice is not None:
            await _in_thread(lambda: self._tell(notice, told))
        # Who stops a run wants it to end; and a run that did not get the output did nothing.
        for command in () if summary["exit_status"] in NO_HOOKS else self._job.hooks.after:
            hook = Hook(command, msgspec.json.encode(summary), without=self._job.api.key_env)
            try:
                wrong = await _in_thread(hook.run)
            finally:
                hook.end()
            if wrong is not None:
                self._say(f"hooks.after: `{command}`{wrong}")

    def _tell(self, notice: Notice, summary: dict[str, Any]) -> None:
        webhook, notify = self._webhook, self._notify
        if webhook is not None:
            from batchfox.webhook import post

            body = msgspec.json.encode({"event": notice.why, "title": notice.title, "text": notice.body, **summary})
            self._try(without_secret(webhook), lambda: post(webhook, body))
        if notify is not None:
            self._try("notify.urls", notify(notice))

    def _try(self, shown: str, send: Callable[[], str | None]) -> None:
        """Until it is said that nothing went wrong."""
        wrong: str | None = None
        for number in range(TRIES):
            if number:
                time.sleep(FIRST_WAIT_S * 2 ** (number - 1))
            if (wrong := _within(TRY_S, send)) is None:
                return
        self._say(f"nobody was told through {shown}: {wrong} ({TRIES} tries)")

    def _say(self, line: str) -> None:
        for secret in (self._secret, *self._addresses):
            line = secret.hide(line)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"batchfox: {line}\n")


def _placed(summary: dict[str, Any]) -> dict[str, Any]:
    """As whoever is elsewhere has to read it: the whole path of the output, and the machine."""
    output = summary["output"]
    with contextlib.suppress(OSError):  # a working directory that is gone is told by who needs it
        output = str(Path(output).absolute())
    return {**summary, "output": output, "host": socket.gethostname()}


def _within(most_s: float, send: Callable[[], str | None]) -> str | None:
    """What it says, or that it said nothing in time: a server that sends a byte now and then holds on for ever."""
    said: list[str | None] = []
    sender = threading.Thread(target=lambda: said.append(send()), name="send", daemon=True)
    sender.start()
    sender.join(most_s)
    return said[0] if said else f"no reply in {most_s:g} s"


async def _in_thread(work: Callable[[], T]) -> T:
    """What it returns. In a thread that holds nobody up: who leaves need not wait for it, as for one of asyncio's."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(cast("T", result))
        else:
            done.set_exception(error)

    def do() -> None:
        result, wrong = None, None
        try:
            result = work()
        except BaseException as error:
            wrong = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, result, wrong)

    threading.Thread(target=do, name="after", daemon=True).start()
    return await done


def _resolve(where: str, target: str) -> str:
    """The address itself. Raises `JobError`, `UserError`."""
    if HIDDEN in target:
        raise JobError(f"{where}: {target} is what was kept of an address; put the address back, or a $NAME")
    name = name_in(target)
    if name is None:
        return target
    if not (value := value_named(name).strip()):
        raise UserError(f"{where}: {target} is not set: put the address into the environment or a .env file")
    return value


def _apprise(urls: list[str], shown: list[str]) -> Callable[[Notice], Callable[[], str | None]]:
    """Of a notice, what sends it to all these addresses: who took it is not told again when it is sent once more.
    Raises `JobError`, and `UserError` where Apprise is not there."""
    try:
        with _unwarned():
            import apprise
    except ImportError as error:
        raise UserError("notify.urls needs Apprise: pip install 'batchfox[notify]'") from error
    logging.getLogger("apprise").addHandler(logging.NullHandler())
    logging.getLogger("apprise").propagate = False
    targets = []
    for url, name in zip(urls, shown, strict=True):
        one = apprise.Apprise()
        with _unwarned():  # it loads what serves this kind of address
            is_known = one.add(url)
        if not is_known:
            raise JobError(f"notify.urls: {without_secret(name)} is no address that Apprise knows")
        targets.append((one, without_secret(name)))
    kinds = {"failure": apprise.NotifyType.FAILURE, "spend": apprise.NotifyType.WARNING}

    def sender_of(notice: Notice) -> Callable[[], str | None]:
        left = list(targets)
        kind = kinds.get(notice.why, apprise.NotifyType.SUCCESS)

        def send() -> str | None:
            for one, name in list(left):
                if one.notify(title=notice.title, body=notice.body, notify_type=kind):
                    left.remove((one, name))
            return f"{', '.join(name for _, name in left)} took nothing" if left else None

        return send

    return sender_of


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """What Apprise is warned of is its own business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
