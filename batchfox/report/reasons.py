"""Error codes in plain words, and what to do; the same words as docs/job-file.md where it names the code."""

from __future__ import annotations

from batchfox.core.rules import rule_names

_OURS = {
    "unreadable_row": "the line or record cannot be read, is too long, or has no id: mend the input",
    "template": "a template of [request] could not be rendered over this row: mend the row, or give a default",
    "batch": "a line in the OpenAI batch form whose body, url or method is not one: mend the input",
    "media": "a local medium cannot be sent: not found, outside of media.root, of an unknown kind, or too large",
    "upload_refused": "the API refused the upload of a medium; nothing was submitted",
    "upload_failed": "an upload got no readable reply until retry.patience was over; it was free",
    "lost_reply": "the connection broke after the submit was sent: it may have been billed",
    "unreadable_reply": "the API's reply to the submit is no task: it may have been billed",
    "task_id_taken": "the API gave a task id that another row in flight has",
    "interrupted": "the run ended while this submit was on the wire: it may have been billed",
    "task_failed": "the task failed, and the API did not say why",
    "task_expired": "the API does not know the task any more",
    "no_results": "the task is completed, but without a readable result",
    "task_timeout": "the task did not end within poll.task_timeout; every later run asks about it once more, free",
    "row_gone": "the row was to be sent again, but the input no longer has it",
    "not_sent_again": "the row was to be sent again, but [retry] no longer says so",
}
_API = {
    "invalid_param": "the API takes no such value: mend the row or [request]",
    "model_rule_violation": "the model does not take this request: mend the row or [request]",
    "model_not_support_capability": "the model does not take this kind of input",
    "model_not_supported": "the API has no such model: see batchfox models",
    "no_available_model": "the API has no such model: see batchfox models",
    "unsupported_content_type": "the model does not take this type of content",
    "unsupported_advanced_options": "the model does not take these options",
    "other": "further causes, counted together",
}
_STATUS = {
    "failed": "the API refused or failed it",
    "invalid": "it broke a rule and was never sent",
    "in_doubt": "it was submitted and its fate is unknown",
    "timed_out": "its task did not end in time",
}


def reason_of(status: str, code: str) -> str:
    """Why rows of this status and code did not complete, in plain words."""
    if status == "invalid" and code in (rules := rule_names()):
        return f"the rule: {rules[code]}"
    if code in _OURS or code in _API:
        return _OURS.get(code) or _API[code]
    return _STATUS.get(status, "")
