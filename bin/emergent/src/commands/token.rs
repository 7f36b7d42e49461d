//! `emergent token …`.

use emergent_api::resources::tokens::{CreateToken, TokenList, TokenView, TokenWithSecret};
use uuid::Uuid;

use crate::{
    cli::{TokenCommand, TokenCreateArgs, WithServer},
    client::{Client, ClientError},
    commands::workspace::find,
    print,
};

const TOKENS: &str = "/api/v1/tokens";

/// Does it.
pub(super) async fn run(arguments: WithServer<TokenCommand>) -> Result<(), ClientError> {
    let client = Client::new(&arguments.client)?;
    let json = arguments.client.json;
    match arguments.command {
        TokenCommand::Create(new) => show_secret(&create(&client, &new).await?, json),
        TokenCommand::Ls { project } => {
            let tokens = all(&client, project.as_deref().map(|project| ("project", project))).await?;
            if json { print::json(&TokenList { items: tokens, next_cursor: None }) } else { show(&tokens) }
        }
        TokenCommand::Rotate { given } => {
            let id = meant(&client, &given).await?;
            show_secret(&client.post_nothing(&format!("{TOKENS}/{id}/rotate")).await?, json);
        }
        TokenCommand::Revoke { given } => {
            let id = meant(&client, &given).await?;
            client.delete(&format!("{TOKENS}/{id}")).await?;
            if json {
                print::json(&serde_json::json!({ "id": id, "revoked": true }));
            } else {
                print::line(&format!("revoked {id}"));
            }
        }
    }
    Ok(())
}

/// The token that is meant by an id or a name. A whole id is not looked up: the call that follows tells whether it is
/// there.
async fn meant(client: &Client, given: &str) -> Result<Uuid, ClientError> {
    if let Ok(id) = Uuid::try_parse(given) {
        return Ok(id);
    }
    choose(&all(client, Some(("name", given))).await?, given)
}

/// All tokens that a condition finds, over all pages.
async fn all(client: &Client, condition: Option<(&str, &str)>) -> Result<Vec<TokenView>, ClientError> {
    let query: Vec<_> = [("limit", "200")].into_iter().chain(condition).collect();
    client.get_all(TOKENS, &query, |page: TokenList| (page.items, page.next_cursor)).await
}

/// Revoked tokens have had their names; those that are in use go before them.
fn choose(tokens: &[TokenView], given: &str) -> Result<Uuid, ClientError> {
    let named: Vec<_> = tokens.iter().filter(|token| token.name == given).collect();
    let in_use: Vec<_> = named.iter().filter(|token| token.revoked_at.is_none()).collect();
    match (in_use.as_slice(), named.as_slice()) {
        ([only], _) => Ok(only.id),
        ([], [only]) => Ok(only.id),
        ([], []) => Err(ClientError::NoSuchToken(given.to_owned())),
        _ => {
            let candidates = if in_use.is_empty() { named.iter().collect() } else { in_use };
            let candidates = candidates.iter().take(5).map(|token| token.id.to_string()).collect();
            Err(ClientError::Ambiguous { given: given.to_owned(), candidates })
        }
    }
}

async fn create(client: &Client, new: &TokenCreateArgs) -> Result<TokenWithSecret, ClientError> {
    let workspace_id = match &new.workspace {
        Some(given) => Some(find::workspace(client, given).await?),
        None => None,
    };
    let request = CreateToken {
        name: new.name.clone(),
        scopes: new.scopes(),
        mcp_servers: (!new.mcp_servers.is_empty()).then(|| new.mcp_servers.clone()),
        workspace_id,
        tools: new.tools(),
        operator: new.no_operator.then_some(false),
        administrator: new.no_administrator.then_some(false),
        expires_in_seconds: new.expires_in_seconds,
        project: new.project.clone(),
    };
    client.post(TOKENS, &request).await
}

/// The secret alone on standard output, so that a script can take it.
fn show_secret(made: &TokenWithSecret, json: bool) {
    if json {
        return print::json(made);
    }
    print::notice(&format!("token {} ({}), shown this once:\n", made.token.id, print::printable(&made.token.name)));
    print::line(&made.secret);
}

fn show(tokens: &[TokenView]) {
    print::table(
        ["id", "name", "project", "scopes", "bounds", "state", "created"],
        tokens.iter().map(|token| {
            let scopes: Vec<_> =
                token.scopes.iter().map(|scope| emergent_store::Scope::from(*scope).as_str()).collect();
            let expired = token.expires_at.is_some_and(|expiry| expiry <= chrono::Utc::now());
            let state = match (token.revoked_at, expired) {
                (Some(_), _) => "revoked",
                (None, true) => "expired",
                (None, false) => "valid",
            };
            let created = token.created_at.format("%Y-%m-%d %H:%M").to_string();
            [
                token.id.to_string(),
                token.name.clone(),
                token.project.clone(),
                scopes.join(" "),
                bounds(token),
                state.to_owned(),
                created,
            ]
        }),
    );
}

/// Describes what a token is for beside its scopes: the installation, or some resources alone.
fn bounds(token: &TokenView) -> String {
    let mut bounds = Vec::new();
    if token.administrator {
        bounds.push("administrator".to_owned());
    }
    if !token.operator {
        bounds.push("sessions only".to_owned());
    }
    bounds.extend(token.workspace_id.map(|id| format!("workspace {id}")));
    if let Some(tools) = &token.tools {
        let tools = tools.iter().map(|tool| emergent_store::Tool::from(*tool).as_str()).collect::<Vec<_>>();
        bounds.push(format!("tools {}", tools.join(" ")));
    }
    bounds.extend(token.mcp_servers.as_ref().map(|servers| format!("mcp {}", servers.join(" "))));
    bounds.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u8, name: &str, revoked: bool) -> TokenView {
        let now = chrono::Utc::now();
        TokenView {
            id: Uuid::from_bytes([id; 16]),
            name: name.to_owned(),
            project: "default".to_owned(),
            scopes: Vec::new(),
            mcp_servers: None,
            workspace_id: None,
            tools: None,
            operator: true,
            administrator: false,
            created_at: now,
            rotated_at: None,
            expires_at: None,
            revoked_at: revoked.then_some(now),
        }
    }

    #[test]
    fn a_name_means_the_one_token_in_use_that_has_it() {
        let tokens = [
            token(1, "ci", true),
            token(2, "ci", false),
            token(3, "old", true),
            token(4, "two", false),
            token(5, "two", false),
        ];
        let chosen = |name: &str| choose(&tokens, name).map(|id| id.as_bytes()[0]);
        assert_eq!(chosen("ci").unwrap(), 2);
        assert_eq!(chosen("old").unwrap(), 3);
        assert!(matches!(chosen("two"), Err(ClientError::Ambiguous { candidates, .. }) if candidates.len() == 2));
        assert!(matches!(chosen("none"), Err(ClientError::NoSuchToken(_))));
    }
}
