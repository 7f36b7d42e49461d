//! `emergent token …`.

use emergent_api::resources::tokens::{CreateToken, TokenList, TokenView, TokenWithSecret};

use crate::{
    cli::{TokenCommand, TokenCreateArgs, WithServer},
    client::{Client, ClientError},
    print,
};

const TOKENS: &str = "/api/v1/tokens";

/// Does it.
pub(super) async fn run(arguments: WithServer<TokenCommand>) -> Result<(), ClientError> {
    let client = Client::new(&arguments.client)?;
    let json = arguments.client.json;
    match arguments.command {
        TokenCommand::Create(new) => show_secret(&create(&client, &new).await?, json),
        TokenCommand::Ls => {
            let tokens: TokenList = client.get(TOKENS).await?;
            if json { print::json(&tokens) } else { show(&tokens.items) }
        }
        TokenCommand::Rotate { id } => show_secret(&client.post_nothing(&format!("{TOKENS}/{id}/rotate")).await?, json),
        TokenCommand::Revoke { id } => {
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

async fn create(client: &Client, new: &TokenCreateArgs) -> Result<TokenWithSecret, ClientError> {
    let request = CreateToken {
        name: new.name.clone(),
        scopes: new.scopes(),
        mcp_servers: (!new.mcp_servers.is_empty()).then(|| new.mcp_servers.clone()),
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
        ["id", "name", "project", "scopes", "mcp servers", "state", "created"],
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
                token.mcp_servers.as_ref().map(|servers| servers.join(" ")).unwrap_or_default(),
                state.to_owned(),
                created,
            ]
        }),
    );
}
