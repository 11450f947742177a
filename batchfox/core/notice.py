"""What is told of a run, when it has ended or cost too much, and to whom: short enough to read, with what a person
needs to act.

An address may be a key itself (`slack://token…`), so none is ever shown but its beginning.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Protocol

import msgspec

HIDDEN = "[hidden]"
_NAME = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")
_HTTP = re.compile(r"(https?)://([^/?#@\s]+)([/?#]\S*)?")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://\S+", re.IGNORECASE)
# Ended by somebody's own hand, or held by another run: nothing went wrong.
_QUIET = frozenset({0, 5, 129, 130, 143})
MOST_CAUSES = 3


class NotifyKeys(Protocol):
    """The job file's `[notify]`."""

    @property
    def urls(self) -> list[str]: ...
    @property
    def webhook(self) -> str | None: ...
    @property
    def success(self) -> bool: ...
    @property
    def spend(self) -> float | None: ...


class HookKeys(Protocol):
    """The job file's `[hooks]`."""

    @property
    def after(self) -> list[str]: ...


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Why it is sent: "failure", "spend" or "success"; and its text."""

    why: str
    title: str
    body: str


def is_web_address(address: str) -> bool:
    """Is it an http(s) URL without a user name, as a webhook has to be?"""
    return _HTTP.fullmatch(address) is not None


def complaint_of_notify(notify: NotifyKeys) -> str | None:
    """What is wrong with `[notify]`, with the key's path and no secret; None where nothing is."""
    for url in notify.urls:
        if not (_NAME.fullmatch(url) or _SCHEME.fullmatch(url)):
            return 'notify.urls: expected addresses of Apprise such as "mailto://…", or "$NAME" of the environment'
    hook = notify.webhook
    if hook is not None and not (_NAME.fullmatch(hook) or is_web_address(hook)):
        return 'notify.webhook: expected an http(s) URL without a user name, or "$NAME" of the environment'
    if notify.spend is not None and not 0 < notify.spend < float("inf"):
        return f"notify.spend: expected credits, more than 0, got {notify.spend!r}"
    if not notify.urls and hook is None and (notify.success or notify.spend is not None):
        return "notify: expected urls or a webhook: nobody is named who could be told"
    return None


def complaint_of_hooks(hooks: HookKeys) -> str | None:
    """What is wrong with `[hooks]`; None where nothing is."""
    for command in hooks.after:
        try:
            words = shlex.split(command)
        except ValueError as error:
            return f"hooks.after: expected commands with their quotes closed ({error}), got {command!r}"
        if not words:
            return "hooks.after: expected commands, got an empty one"
    return None


def without_secret(target: str) -> str:
    """An address as it may be shown and kept: its kind, for http(s) its host; a name of the environment as it is."""
    if _NAME.fullmatch(target):
        return target
    if found := _HTTP.fullmatch(target):
        return f"{found[1]}://{found[2]}/{HIDDEN}" if found[3] not in (None, "/") else target
    return f"{target.split('://', 1)[0]}://{HIDDEN}"


def name_in(target: str) -> str | None:
    """The variable of the environment that holds the address; None where it stands in the job."""
    return target[1:] if _NAME.fullmatch(target) else None


def notice_of(job: str, summary: dict[str, Any], notify: NotifyKeys, *, is_spend_told: bool = False) -> Notice | None:
    """What is to be told of a run that ended so; None where nothing is. `summary`: as `summary_of` makes it, with the
    `host`. `is_spend_told`: that it cost more than `notify.spend` was told while it ran."""
    status, stopped = summary["exit_status"], summary.get("stopped")
    spent = summary.get("whole_run", {}).get("credits_spent", 0.0)
    if status not in _QUIET and stopped != "window":
        why = "failure"
    elif notify.spend is not None and spent > notify.spend and not is_spend_told:
        why = "spend"
    elif status == 0 and notify.success:
        why = "success"
    else:
        return None
    return Notice(why=why, title=_title(job, summary, why, spent), body="\n".join(_lines(summary, spent)))


def notice_of_spend(job: str, running: dict[str, Any], most: float) -> Notice:
    """What is to be told of a run that has spent more than `most` credits and goes on. `running`: as the summary of a
    run, as far as it is known."""
    spent = running["whole_run"]["credits_spent"]
    output = shlex.quote(running["output"])
    lines = [
        f"notify.spend = {most:,g} is passed and the run goes on; end it: batchfox ctl {output} stop; bound it: "
        f"batchfox ctl {output} set limits.credits=N",
        *_place(running),
        f"credits: {spent:,.2f}",
        f"look: batchfox status {output}",
    ]
    return Notice(why="spend", title=_title(job, running, "spend", spent), body="\n".join(lines))


def warning(job: str, title: str, told: dict[str, Any]) -> Notice:
    """What is to be told of a job that nothing runs of now. `told`: the `reason`, the `output`, the `host`."""
    return Notice(why="failure", title=f"batchfox: {job}: {title}", body="\n".join([told["reason"], *_place(told)]))


def _title(job: str, summary: dict[str, Any], why: str, spent: float) -> str:
    short = sum(rows for status, rows in summary.get("settled", {}).items() if status != "completed")
    if why == "success":
        return f"batchfox: {job}: done"
    if why == "spend":
        return f"batchfox: {job}: {spent:,.2f} credits spent"
    if summary["exit_status"] == 3:
        return f"batchfox: {job}: {short:,} rows did not complete"
    return f"batchfox: {job}: {'stopped early' if summary['exit_status'] == 4 else 'could not run'}"


def _lines(summary: dict[str, Any], spent: float) -> list[str]:
    lines = [f"exit {summary['exit_status']}" + (f": {summary['reason']}" if summary.get("reason") else "")]
    lines += _place(summary)
    if summary.get("run_id") is None:
        return lines
    lines.append("rows: " + (", ".join(f"{n:,} {status}" for status, n in summary["by_status"].items()) or "none"))
    lines.append(f"credits: {spent:,.2f}")
    for cause in summary.get("causes", [])[:MOST_CAUSES]:
        message = " ".join(cause["example_message"].split())[:200]
        lines.append(
            f"{cause['rows']:,} x {cause['status']}, {cause['code']}: {message} (row {cause['example_row'][:80]})"
        )
    lines.append(f"look: batchfox status {shlex.quote(summary['output'])}")
    return lines


def _place(summary: dict[str, Any]) -> list[str]:
    """Which run it was, and where: a message may come from any of many machines."""
    where = f"output {summary['output']} on {summary['host']}"
    return [where if summary.get("run_id") is None else f"run {summary['run_id']} of {summary['run_date']}, {where}"]
