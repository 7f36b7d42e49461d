"""Workspaces for CompyMac."""

from .workspace_provider import (
    CommandResult,
    FileInfo,
    FirecrackerWorkspaceProvider,
    Workspace,
    WorkspaceError,
)

__all__ = [
    "CommandResult",
    "FileInfo",
    "FirecrackerWorkspaceProvider",
    "Workspace",
    "WorkspaceError",
]
