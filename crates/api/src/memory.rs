//! What a request holds in memory, from its body to the last byte of its answer.

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use emergent_budget::{Kept, SMALL};

use crate::state::ApiState;

/// Gives a request an account, which lasts until its answer has been sent.
pub(crate) async fn account(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let account = state.budget().account();
    let response = account.clone().scope(next.run(request)).await;
    let streams = response.body().size_hint().exact().is_none();
    if !streams && account.held() <= SMALL {
        return response;
    }
    response.map(|body| Body::new(Kept::new(body, account)))
}
