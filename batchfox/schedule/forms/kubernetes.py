"""A Kubernetes CronJob."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from batchfox.errors import JobError
from batchfox.schedule.forms.site import Form, Site, crontabs, five_fields, key_name, name_of, zone_name
from batchfox.schedule.planned import LAST

if TYPE_CHECKING:
    from batchfox.schedule.planned import Planned

FOLDER = "/work"
_TEXT = """\
# The image needs batchfox in it; the claim holds the working directory: job, input, output, and what is remembered.
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {name}
spec:
  schedule: {schedule}
  timeZone: {zone}
  concurrencyPolicy: Forbid
  # How late a run may begin{late}.
  startingDeadlineSeconds: {deadline}
  jobTemplate:
    spec:
      backoffLimit: 3
      podFailurePolicy:
        rules:
          # A pod that was moved goes on where it was; what batchfox says by its exit status no second try mends.
          - action: Ignore
            onPodConditions:
              - type: DisruptionTarget
                status: "True"
          - action: FailJob
            onExitCodes:
              operator: In
              values: [1, 2, 3, 4]
      template:
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: 60
          containers:
            - name: batchfox
              image: {image}
              command: ["batchfox"]
              args: {args}
              workingDir: {folder}
              env:
                - name: XDG_STATE_HOME
                  value: {state}
{key}              volumeMounts:
                - name: work
                  mountPath: {folder}
          volumes:
            - name: work
              persistentVolumeClaim:
                claimName: {name}
"""
_KEY = """\
                - name: {key}
                  valueFrom:
                    secretKeyRef:
                      name: {name}
                      key: {key}
"""


def forms(planned: Planned, site: Site) -> list[Form]:
    """The CronJob as YAML. Raises `JobError` where its cron cannot say the job's times."""
    name, key, catches_up = name_of(planned), key_name(planned), planned.nights.catch_up
    text = _TEXT.format(
        name=name,
        schedule=json.dumps(one_line(planned, "k8s")),
        zone=json.dumps(zone_name(planned)),
        late=": a night that was missed is made up for" if catches_up else "",
        deadline=86_400 if catches_up else 300,
        image=json.dumps(site.image),
        args=json.dumps(["run", planned.path, "--scheduled", LAST]),
        folder=FOLDER,
        state=f"{FOLDER}/.state",
        key="" if key is None else _KEY.format(key=json.dumps(key), name=name),
    )
    return [Form(f"{name}.yaml", text)]


def one_line(planned: Planned, form: str) -> str:
    """All times of a job as one expression. Raises `JobError` where there is none."""
    found = crontabs(planned)
    fields = five_fields(found[0])
    if len(found) == 1 and fields is not None:
        return fields
    raise JobError(
        f'{planned.path}: schedule.cron = "{planned.job.schedule.cron}" cannot be written as one expression that '
        f"{form} reads alike (a window that cuts an hour, or days of the month and of the week that must both match); "
        "choose other times, or --print systemd"
    )
