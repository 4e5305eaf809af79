"""What Azure lets into a body: closed objects, fixed words, and what must not be missing.

A rule is a type, a tuple of allowed words, a dict (a closed object; a name with ``!`` must be there),
`Map` (an object with names of the sender's choice), `OneOf` (which of several, by a field), or a list of one rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from emulators.azure_wire import Problem

_DURATION = re.compile(r"P(?=\w)(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?")


class Duration(str):
    """A rule: text like PT2M."""


@dataclass(frozen=True)
class Map:
    rule: Any = object


@dataclass(frozen=True)
class OneOf:
    field: str
    rules: dict[str, Any]


TEXTS = Map(str)
_ASSET = {"description": str, "tags": TEXTS, "properties": TEXTS, "isAnonymous": bool, "isArchived": bool}
_URI = ("uri_file", "uri_folder", "mltable", "custom_model", "mlflow_model", "triton_model")
_IN = {"description": str, "uri!": str, "jobInputType!": _URI,
       "mode": ("ReadOnlyMount", "ReadWriteMount", "Download", "Direct", "EvalMount", "EvalDownload")}  # fmt: skip
_OUT = {"description": str, "uri": str, "assetName": str, "jobOutputType!": _URI,
        "mode": ("ReadWriteMount", "Upload", "Direct")}  # fmt: skip
_LITERAL = {"description": str, "jobInputType!": ("literal",), "value!": str}
_INPUT = OneOf("jobInputType", {"literal": _LITERAL, **dict.fromkeys(_URI, _IN)})
_SERVICE = {"endpoint": str, "jobServiceType": str, "port": int, "properties": TEXTS, "nodes": object, "status": str,
            "errorMessage": str}  # fmt: skip
_TF, _TORCH, _MPI = "TensorFlow", "PyTorch", "Mpi"
_DISTRIBUTION = OneOf("distributionType", {
    _TF: {"distributionType!": (_TF,), "workerCount": int, "parameterServerCount": int},
    _TORCH: {"distributionType!": (_TORCH,), "processCountPerInstance": int},
    _MPI: {"distributionType!": (_MPI,), "processCountPerInstance": int},
})  # fmt: skip
JOB = {"properties!": {
    "jobType!": ("Command",), "command!": str, "environmentId!": str, "computeId": str, "codeId": str,
    "componentId": str, "description": str, "displayName": str, "experimentName": str, "isArchived": bool,
    "environmentVariables": TEXTS, "tags": TEXTS, "properties": TEXTS, "parameters": object, "identity": object,
    "notificationSetting": object, "status": str, "services": Map(_SERVICE), "distribution": _DISTRIBUTION,
    "inputs": Map(_INPUT), "outputs": Map(_OUT), "queueSettings": {"jobTier": str},
    "limits": {"jobLimitsType!": ("Command",), "timeout": Duration},
    "resources": {"instanceCount": int, "instanceType": str, "shmSize": str, "dockerArgs": str,
                  "dockerArgsList": [str], "properties": Map()},
}}  # fmt: skip
_ONOFF = ("Enabled", "Disabled")
_CLUSTER = {
    "vmSize!": str, "vmPriority": ("Dedicated", "LowPriority"), "osType": ("Linux", "Windows"), "subnet": object,
    "scaleSettings": {"maxNodeCount!": int, "minNodeCount": int, "nodeIdleTimeBeforeScaleDown": Duration},
    "remoteLoginPortPublicAccess": (*_ONOFF, "NotSpecified"), "isolatedNetwork": bool, "enableNodePublicIp": bool,
    "propertyBag": object, "virtualMachineImage": object,
    "userAccountCredentials": {"adminUserName!": str, "adminUserPassword": str, "adminUserSshPublicKey": str},
}  # fmt: skip
_TOP = {"location": str, "tags": TEXTS, "id": str, "name": str, "type": str}
COMPUTE = {
    **_TOP, "identity": object, "sku": object,
    "properties!": {"computeType!": ("AmlCompute",), "computeLocation": str, "description": str, "resourceId": str,
                    "disableLocalAuth": bool, "properties!": _CLUSTER},
}  # fmt: skip
DATA = {"properties!": {**_ASSET, "dataType!": ("uri_file", "uri_folder", "mltable"), "dataUri!": str,
                        "referencedUris": [str], "stage": str, "autoDeleteSetting": object,
                        "intellectualProperty": object}}  # fmt: skip
ENVIRONMENT = {"properties!": {
    **_ASSET, "image": str, "condaFile": str, "build": {"contextUri!": str, "dockerfilePath": str}, "stage": str,
    "osType": ("Linux", "Windows"), "autoRebuild": ("Disabled", "OnBaseImageUpdate"), "inferenceConfig": object,
    "environmentType": str, "intellectualProperty": object,
}}  # fmt: skip
CODE = {"properties!": {**_ASSET, "properties": Map(), "codeUri!": str, "referencedUris": [str]}}
_ALERT = {
    "enabled!": bool, "operator!": ("EqualTo", "GreaterThan", "GreaterThanOrEqualTo"), "threshold!": float,
    "thresholdType": ("Actual", "Forecasted"), "contactEmails": [str], "contactRoles": [str], "contactGroups": [str],
    "locale": str,
}  # fmt: skip
BUDGET = {"eTag": str, "id": str, "name": str, "type": str, "properties!": {
    "category!": ("Cost",), "amount!": float, "filter": object, "notifications": Map(_ALERT),
    "timeGrain!": ("Monthly", "Quarterly", "Annually", "BillingMonth", "BillingQuarter", "BillingAnnual"),
    "timePeriod!": {"startDate!": str, "endDate": str},
}}  # fmt: skip


def check(body: Any, rule: Any, place: str = "") -> None:
    """Raises Problem 400 for the first thing that Azure would not take. Null is as good as missing."""
    if body is None or rule is object:
        return
    if isinstance(rule, OneOf):
        rule = _chosen(body, rule, place)
    if isinstance(rule, Map):
        _is(isinstance(body, dict), place, "an object")
        for name, value in body.items():
            check(value, rule.rule, f"{place}.{name}")
    elif isinstance(rule, dict):
        _check_object(body, rule, place)
    elif isinstance(rule, list):
        _is(isinstance(body, list), place, "a list")
        for at, value in enumerate(body):
            check(value, rule[0], f"{place}[{at}]")
    elif isinstance(rule, tuple):
        _is(body in rule, place, f"one of {', '.join(rule)}, not {body!r}")
    elif rule is Duration:
        _is(isinstance(body, str) and _DURATION.fullmatch(body), place, f"a duration like PT2M, not {body!r}")
    else:
        _is(_fits(body, rule), place, f"{rule.__name__}, not {body!r}")


def _fits(body: Any, rule: type) -> bool:
    if isinstance(body, bool):
        return rule is bool
    return isinstance(body, (int, float) if rule is float else rule)


def _chosen(body: Any, rule: OneOf, place: str) -> Any:
    _is(isinstance(body, dict), place, "an object")
    kind = body.get(rule.field)
    _is(kind in rule.rules, f"{place}.{rule.field}", f"one of {', '.join(rule.rules)}, not {kind!r}")
    return rule.rules[kind]


def _check_object(body: Any, rule: dict[str, Any], place: str) -> None:
    _is(isinstance(body, dict), place, "an object")
    known = {name.rstrip("!"): one for name, one in rule.items()}
    for name, value in body.items():
        if name not in known:
            raise _bad(f"Could not find member '{name}' on the object at '{place or '/'}'. Known: {', '.join(known)}")
        check(value, known[name], f"{place}.{name}".lstrip("."))
    for name in (name[:-1] for name in rule if name.endswith("!")):
        if body.get(name) is None:
            raise _bad(f"Required property '{name}' not found at '{place or '/'}'.")


def _is(holds: object, place: str, wanted: str) -> None:
    if not holds:
        raise _bad(f"The value at '{place or '/'}' must be {wanted}.")


def _bad(text: str) -> Problem:
    return Problem(400, "InvalidRequestContent", f"The request content was invalid: {text}")
