//! The Python client, as its readme shows it.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Manager};
use tokio::process::Command;

/// The program of the client's user.
const PROGRAM: &str = r#"
import asyncio, sys
from compymac_integration.workspace_provider import FirecrackerWorkspaceProvider, WorkspaceError

async def main() -> None:
    async with FirecrackerWorkspaceProvider(sys.argv[1]) as provider:
        sandbox_id = await provider.create_workspace(memory_mb=256, network="none")
        result = await provider.run_command("echo out; echo err >&2; exit 3")
        assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3), result
        await provider.write_file("/workspace/main.py", "print('hello')")
        await provider.write_file("/workspace/raw", b"\xff\x00")
        assert await provider.read_file("/workspace/main.py") == "print('hello')"
        assert await provider.read_bytes("/workspace/raw") == b"\xff\x00"
        assert {"main.py", "raw"} <= {file.name for file in await provider.list_files("/workspace")}
        await provider.pause_workspace()
        assert (await provider.get_workspace()).status == "paused"
        try:
            await provider.run_command("true")
            raise AssertionError("a paused workspace runs commands")
        except WorkspaceError as error:
            assert error.status == 409, error
        await provider.resume_workspace(sandbox_id)
        assert (await provider.run_command("python3 main.py || cat main.py")).success
        await provider.destroy_workspace()
        await provider.destroy_workspace(sandbox_id)
        assert not await provider.list_workspaces()

asyncio.run(main())
"#;

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("the_python_client_does_what_its_readme_shows", |_| client())]
}

async fn client() -> anyhow::Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let venv = root.join(".cache/python-client");
    let python = venv.join("bin/python");
    if !python.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).await?;
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "httpx>=0.27,<1", "mypy"])).await?;
    let package = root.join("compymac_integration");
    run(Command::new(&python).args(["-m", "mypy", "--strict"]).arg(&package).current_dir(&root)).await?;
    let manager = Manager::start(&[]).await?;
    run(Command::new(&python).args(["-c", PROGRAM, &manager.url()]).env("PYTHONPATH", &root)).await
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.kill_on_drop(true).output().await.context("starting a program")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}\n{err}");
    Ok(())
}
