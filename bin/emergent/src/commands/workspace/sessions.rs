//! `emergent workspace attach | detach | sessions`.

use emergent_api::resources::workspaces::sessions::{Attach, Detach, SessionList, SessionView};

use super::find::{self, WORKSPACES};
use crate::{
    cli::{AttachArgs, DetachArgs, SessionsArgs},
    client::{Client, ClientError},
    print,
};

/// Attaches to a workspace, and prints the session's id.
pub(super) async fn attach(client: &Client, arguments: &AttachArgs, json: bool) -> Result<(), ClientError> {
    let id = find::workspace(client, &arguments.workspace).await?;
    let request = Attach {
        holder: arguments.holder.clone(),
        session_id: arguments.session_id,
        expires_in_seconds: arguments.expires_in,
        take_over: arguments.take_over,
    };
    let session: SessionView = client.post(&format!("{WORKSPACES}/{id}/attach"), &request).await?;
    if json {
        print::json(&session);
    } else {
        print::line(&session.session_id.to_string());
    }
    Ok(())
}

/// Detaches from a workspace.
pub(super) async fn detach(client: &Client, arguments: &DetachArgs, json: bool) -> Result<(), ClientError> {
    let id = find::workspace(client, &arguments.workspace).await?;
    let request = Detach { session_id: arguments.session_id };
    let session: SessionView = client.post(&format!("{WORKSPACES}/{id}/detach"), &request).await?;
    if json {
        print::json(&session);
    } else {
        let reason = session.end_reason.as_deref().unwrap_or_default();
        print::line(&format!("{} {}", session.session_id, print::printable(reason)));
    }
    Ok(())
}

/// Lists the sessions of a workspace, with their times.
pub(super) async fn list(client: &Client, arguments: &SessionsArgs, json: bool) -> Result<(), ClientError> {
    let id = find::workspace(client, &arguments.workspace).await?;
    let path = format!("{WORKSPACES}/{id}/sessions");
    let sessions =
        client.get_all(&path, &[("limit", "200")], |page: SessionList| (page.items, page.next_cursor)).await?;
    if json {
        print::json(&SessionList { items: sessions, next_cursor: None });
        return Ok(());
    }
    print::table(
        ["session", "holder", "attached", "ended", "why"],
        sessions.into_iter().map(|session| {
            let time = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
            [
                session.session_id.to_string(),
                session.holder,
                time(session.attached_at),
                session.ended_at.map(time).unwrap_or_default(),
                session.end_reason.unwrap_or_default(),
            ]
        }),
    );
    Ok(())
}
