//! The first token: made when there has never been one, shown once, and kept in a file that its owner alone can read.

use std::{fs, path::Path};

use anyhow::Context as _;
use emergent_auth::TokenSecret;
use emergent_store::{Grants, NewToken, Scope, Store};

use super::private_file;
use crate::{config::bootstrap_token_file, print};

/// Makes the first token if there has never been one.
pub(super) async fn ensure_first_token(store: &Store, data_dir: &Path) -> anyhow::Result<()> {
    if store.tokens_any().await? {
        return Ok(());
    }
    let secret = TokenSecret::generate();
    let path = bootstrap_token_file(data_dir);
    // The file first: a crash in between leaves a file that the next start replaces, never a token that nobody knows.
    private_file::write(&path, secret.expose()).with_context(|| format!("{} cannot be written", path.display()))?;
    let made = store
        .tokens_create_first(NewToken {
            project: store.default_project(),
            name: "bootstrap".to_owned(),
            grants: Grants { is_administrator: true, ..Grants::on_project(Scope::ALL.to_vec()) },
            hash: secret.hash(),
            expires_at: None,
        })
        .await?;
    if made.is_none() {
        // Another server on the same database was first; its token opens this one, too.
        return fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()));
    }
    print::notice(&format!(
        "\nThe first token, shown this once and kept in {}:\n\n    {}\n\n",
        path.display(),
        secret.expose()
    ));
    Ok(())
}
