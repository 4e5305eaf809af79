"""The Colab runtimes of legs: connecting, finding one that an interrupted submit left, and releasing with proof."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from boneagectl.errors import ProviderRefused, RemoteError, Unreachable
from boneagectl.targets.colab.cli_state import LegRecord
from boneagectl.targets.colab.colab_cli import ColabCli, RuntimeAccess
from boneagectl.targets.colab.jupyter import RuntimeClient, RuntimeGone

_TOKEN_MARGIN_S = 120.0
_RELEASE_PAUSES_S = (0.0, 2.0, 5.0)
END_BY_HAND = "end it in a browser: colab.research.google.com, Runtime > Manage sessions"


class Runtimes:
    def __init__(self, colab: ColabCli) -> None:
        self._colab = colab

    @contextmanager
    def connect(self, record: LegRecord) -> Iterator[RuntimeClient]:
        """A client of the leg's runtime, whose token is renewed when its hour is nearly over.

        Raises:
            RuntimeGone: the account no longer has this runtime. RemoteError: Google's CLI got no answer.
        """
        access = self._colab.access(record.name)
        is_valid = access and access.url and access.endpoint == record.endpoint
        if not access or not is_valid or access.expires_s <= time.time() + _TOKEN_MARGIN_S:
            access = self.renew_access(record)
        with closing(RuntimeClient(access, lambda: self.renew_access(record))) as client:
            yield client

    def renew_access(self, record: LegRecord) -> RuntimeAccess:
        """A new address and token for the leg's runtime; raises as `connect`."""
        if record.endpoint not in self._list_endpoints():
            raise RuntimeGone(f"the account has no Colab runtime {record.endpoint} any more")
        access = self._colab.access(record.name)
        if access is None or access.endpoint != record.endpoint:  # the CLI's state file, and the name in it, was lost
            self._adopt(record.name, record.endpoint)
            access = self._colab.access(record.name)
        if access is None:
            raise Unreachable(f"Google's CLI gave no access to the runtime {record.name}", "try again in some minutes")
        return access

    def find_leftover(self, record: LegRecord) -> str:
        """The endpoint of the runtime that an interrupted submit left, or "".

        It has the leg's name. Where Google's CLI was killed too it has no name, but it is newer than the record, has
        the leg's GPU, and no kernel: a runtime that was opened in a browser has one.
        """
        listed = self._colab.list_runtimes()
        for runtime in listed:
            if runtime.name == record.name or runtime.endpoint == record.endpoint:
                return runtime.endpoint
        for runtime in listed:
            is_candidate = not runtime.name and runtime.gpu == record.gpu and runtime.endpoint not in record.before
            if is_candidate and self._claim_unused(record.name, runtime.endpoint):
                return runtime.endpoint
        return ""

    def _claim_unused(self, name: str, endpoint: str) -> bool:
        """Gives the runtime our name if it has no kernel; one that is in use is not ours and must not keep the name."""
        self._adopt(name, endpoint)
        access = self._colab.access(name)
        if access:
            with suppress(RemoteError), closing(RuntimeClient(access, lambda: access)) as client:
                if not client.list_kernels():
                    return True
        self._colab.disown(name)
        return False

    def release(self, record: LegRecord) -> None:
        """Releases the runtime, and returns once the account's list no longer shows it.

        Raises:
            ProviderRefused: it is still listed. RemoteError: the list cannot be read.
        """
        access = self._colab.access(record.name)
        if access is None or access.endpoint != record.endpoint:
            if record.endpoint not in self._list_endpoints():
                return
            self._adopt(record.name, record.endpoint)
        for pause_s in _RELEASE_PAUSES_S:
            time.sleep(pause_s)
            self._colab.stop(record.name)
            if record.endpoint not in self._list_endpoints():
                return
            self._adopt(record.name, record.endpoint)
        raise ProviderRefused(f"the runtime {record.name} is still running and may be billed", END_BY_HAND)

    def _adopt(self, name: str, endpoint: str) -> None:
        self._colab.adopt(name, endpoint)
        self._list_endpoints()  # makes Google's CLI fetch the address and token

    def _list_endpoints(self) -> set[str]:
        return {runtime.endpoint for runtime in self._colab.list_runtimes()}
