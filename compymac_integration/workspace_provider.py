"""Workspaces as microVMs of a Firecracker workspace service.

A provider speaks to one service and remembers one workspace, the one that was created or resumed last: calls that name
no other are about it. It may be used by several tasks of one event loop; each that needs a workspace of its own passes
``sandbox_id``.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Mapping, Optional, Union
from urllib.parse import quote

import httpx

#: What a boot, or gigabytes of memory to disk, may take, in seconds.
_SLOW = 300.0
#: What the service may take for a command beyond the command's own time, in seconds.
_MARGIN = 30.0


class WorkspaceError(Exception):
    """The service refused, or could not be reached."""

    def __init__(self, message: str, status: Optional[int] = None, kind: Optional[str] = None) -> None:
        super().__init__(message)
        #: The HTTP status; ``None`` when there was no answer.
        self.status = status
        #: The stable name of this kind of problem.
        self.kind = kind
        #: Seconds after which the same may be asked again, where the service says so.
        self.retry_after: Optional[float] = None


@dataclass(frozen=True)
class CommandResult:
    """What a command did."""

    stdout: str
    stderr: str
    #: ``None`` when the machine went before the command's end.
    exit_code: Optional[int]
    duration_ms: int
    timed_out: bool
    #: The middle of an output was cut; the workspace has all of it in a file.
    truncated: bool

    @property
    def success(self) -> bool:
        """Whether the command ended by itself, with exit code 0."""
        return self.exit_code == 0 and not self.timed_out


@dataclass(frozen=True)
class FileInfo:
    """What stands at a path."""

    name: str
    path: str
    is_directory: bool
    size: int


@dataclass(frozen=True)
class Workspace:
    """A workspace as the service has it."""

    sandbox_id: str
    workspace_id: Optional[str]
    #: Such as ``ready``, ``paused`` or ``stopped``.
    status: str
    memory_mb: int
    vcpu_count: int


class FirecrackerWorkspaceProvider:
    """Workspaces of the service at ``base_url``."""

    def __init__(
        self,
        base_url: str = "http://localhost:8080",
        api_key: Optional[str] = None,
        *,
        timeout: float = 30.0,
        transport: Optional[httpx.AsyncBaseTransport] = None,
    ) -> None:
        key = api_key or os.environ.get("FIRECRACKER_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout, transport=transport)
        #: The workspace that calls are about which name no other.
        self.sandbox_id: Optional[str] = None

    async def __aenter__(self) -> FirecrackerWorkspaceProvider:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Workspaces go on."""
        await self._client.aclose()

    async def health(self) -> dict[str, Any]:
        """How the service is; an unhealthy one answers, too."""
        answer = await self._send("GET", "/health", refuse=False)
        return _object(answer)

    async def create_workspace(
        self,
        workspace_id: Optional[str] = None,
        *,
        template: Optional[str] = None,
        memory_mb: Optional[int] = None,
        vcpu_count: Optional[int] = None,
        disk_mb: Optional[int] = None,
        network: Optional[str] = None,
        ttl_seconds: Optional[int] = None,
    ) -> str:
        """Makes a workspace, or resumes the one of the same ``workspace_id``; answers its sandbox id."""
        wanted = {
            "workspace_id": workspace_id,
            "template": template,
            "memory_mb": memory_mb,
            "vcpu_count": vcpu_count,
            "disk_mb": disk_mb,
            "network": network,
            "ttl_seconds": ttl_seconds,
        }
        body = {name: value for name, value in wanted.items() if value is not None}
        made = _object(await self._send("POST", "/sandboxes", json=body, timeout=_SLOW))
        self.sandbox_id = _text(made, "sandbox_id")
        return self.sandbox_id

    async def get_workspace(self, sandbox_id: Optional[str] = None) -> Workspace:
        """A workspace as it is."""
        return _workspace(_object(await self._send("GET", self._path(sandbox_id))))

    async def list_workspaces(self) -> list[Workspace]:
        """All workspaces of the service."""
        answer = _object(await self._send("GET", "/sandboxes"))
        return [_workspace(each) for each in answer["sandboxes"]]

    async def run_command(
        self,
        command: str,
        timeout: float = 300.0,
        working_dir: str = "/workspace",
        *,
        env: Optional[Mapping[str, str]] = None,
        sandbox_id: Optional[str] = None,
    ) -> CommandResult:
        """Runs a command and waits for its end. One that fails is a result, not an error."""
        body = {
            "command": command,
            "timeout_seconds": timeout,
            "working_dir": working_dir,
            "env": dict(env or {}),
        }
        path = self._path(sandbox_id, "/exec")
        answer = _object(await self._send("POST", path, json=body, timeout=timeout + _MARGIN))
        return CommandResult(
            stdout=_text(answer, "stdout"),
            stderr=_text(answer, "stderr"),
            exit_code=answer.get("exit_code"),
            duration_ms=int(answer.get("duration_ms", 0)),
            timed_out=bool(answer.get("timed_out", False)),
            truncated=bool(answer.get("truncated", False)),
        )

    async def write_file(self, path: str, content: Union[str, bytes], *, sandbox_id: Optional[str] = None) -> None:
        """Writes a whole file; its parents are made."""
        body = {"path": path}
        if isinstance(content, bytes):
            body.update(content=base64.b64encode(content).decode("ascii"), encoding="base64")
        else:
            body.update(content=content)
        await self._send("POST", self._path(sandbox_id, "/files/write"), json=body)

    async def read_file(self, path: str, *, sandbox_id: Optional[str] = None) -> str:
        """The text in a file. One that is not text is an error: take ``read_bytes``."""
        answer = await self._read(path, sandbox_id)
        if answer.get("encoding") == "base64":
            raise WorkspaceError(f"{path} is not text; read_bytes reads it")
        return _text(answer, "content")

    async def read_bytes(self, path: str, *, sandbox_id: Optional[str] = None) -> bytes:
        """The bytes in a file."""
        answer = await self._read(path, sandbox_id)
        content = _text(answer, "content")
        return base64.b64decode(content) if answer.get("encoding") == "base64" else content.encode("utf-8")

    async def list_files(self, path: str = "/workspace", *, sandbox_id: Optional[str] = None) -> list[FileInfo]:
        """What stands in a directory, sorted by name."""
        answer = _object(await self._send("GET", self._path(sandbox_id, "/files/list"), params={"path": path}))
        return [
            FileInfo(
                name=_text(each, "name"),
                path=_text(each, "path"),
                is_directory=bool(each["is_directory"]),
                size=int(each["size"]),
            )
            for each in answer["files"]
        ]

    async def pause_workspace(self, sandbox_id: Optional[str] = None) -> None:
        """Writes the workspace's whole state to disk; its processes go on when it is resumed."""
        await self._send("POST", self._path(sandbox_id, "/pause"), timeout=_SLOW)

    async def resume_workspace(self, sandbox_id: Optional[str] = None) -> None:
        """Lets a workspace go on; calls that name no other are about it from now on."""
        path = self._path(sandbox_id, "/resume")
        await self._send("POST", path, timeout=_SLOW)
        self.sandbox_id = sandbox_id or self.sandbox_id

    async def destroy_workspace(self, sandbox_id: Optional[str] = None) -> None:
        """Removes a workspace and all that is in it; that it is gone already is no error."""
        named = sandbox_id or self.sandbox_id
        try:
            await self._send("DELETE", self._path(sandbox_id), timeout=_SLOW)
        except WorkspaceError as error:
            if error.status != 404:
                raise
        if named == self.sandbox_id:
            self.sandbox_id = None

    async def _read(self, path: str, sandbox_id: Optional[str]) -> dict[str, Any]:
        return _object(await self._send("GET", self._path(sandbox_id, "/files/read"), params={"path": path}))

    def _path(self, sandbox_id: Optional[str], rest: str = "") -> str:
        named = sandbox_id or self.sandbox_id
        if named is None:
            raise WorkspaceError("there is no workspace; create one first, or name one by sandbox_id")
        return f"/sandboxes/{quote(named, safe='')}{rest}"

    async def _send(
        self,
        method: str,
        path: str,
        *,
        json: Optional[Mapping[str, Any]] = None,
        params: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
        refuse: bool = True,
    ) -> httpx.Response:
        limit = httpx.USE_CLIENT_DEFAULT if timeout is None else httpx.Timeout(timeout, connect=10.0)
        try:
            response = await self._client.request(method, path, json=json, params=params, timeout=limit)
        except httpx.TimeoutException as error:
            raise WorkspaceError("the service did not answer in time; the call may have happened") from error
        except httpx.HTTPError as error:
            raise WorkspaceError(f"the service at {self._client.base_url} could not be reached: {error}") from error
        if response.is_success or not refuse:
            return response
        raise _refusal(response)


def _refusal(response: httpx.Response) -> WorkspaceError:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    problem = problem if isinstance(problem, dict) else {}
    detail = problem.get("detail") or f"the service answered {response.status_code}"
    error = WorkspaceError(str(detail), status=response.status_code, kind=problem.get("type"))
    try:
        error.retry_after = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        pass
    return error


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise WorkspaceError("the service answered something else than a JSON object", status=response.status_code)
    return answer


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise WorkspaceError(f"the service's answer has no text {name!r}")
    return value


def _workspace(answer: Mapping[str, Any]) -> Workspace:
    return Workspace(
        sandbox_id=_text(answer, "sandbox_id"),
        workspace_id=answer.get("workspace_id"),
        status=_text(answer, "status"),
        memory_mb=int(answer["memory_mb"]),
        vcpu_count=int(answer["vcpu_count"]),
    )
