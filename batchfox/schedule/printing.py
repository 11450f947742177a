"""`--print`: which forms there are, and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchfox.durable import make_folder
from batchfox.errors import JobError, UserError
from batchfox.schedule.forms import airflow, cron, kubernetes, systemd
from batchfox.schedule.forms.site import Form, Site
from batchfox.schedule.planned import Planned

FORMS = {"systemd": systemd.forms, "cron": cron.forms, "k8s": kubernetes.forms, "airflow": airflow.forms}


def make_forms(kind: str, jobs: Sequence[Planned], site: Site) -> list[Form]:
    """What has to be put somewhere for all these jobs. Raises `JobError`, also where two of them would be one."""
    found = [form for planned in jobs for form in FORMS[kind](planned, site)]
    names = [form.name for form in found]
    for name in names:
        if names.count(name) > 1:
            raise JobError(
                f"two of these jobs would both be {name}: give them names of their own (name = ... in the job)"
            )
    return found


def write_forms(forms: Sequence[Form], folder: Path) -> list[Path]:
    """Writes each into a file that does not exist yet. Raises `UserError` where one does."""
    paths = [folder / form.name for form in forms]
    for path in paths:
        if path.exists():
            raise UserError(f"{path}: exists already and is not replaced; remove it, or choose another folder")
    make_folder(folder)
    for path, form in zip(paths, forms, strict=True):
        path.write_text(form.text, encoding="utf-8")
    return paths


def as_text(forms: Sequence[Form]) -> str:
    """All of them, one below the other; each below its name where there are several."""
    if len(forms) == 1:
        return forms[0].text.rstrip("\n")
    return "\n\n".join(f"# {form.name}\n{form.text.rstrip()}" for form in forms)
