//! The account of what a request holds in memory, from its body to the last byte of its answer.

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use emergent_budget::{Account, Budget, Kept, SMALL};

use crate::http::problem::Refusal;

/// Gives a request an account, which lasts until its answer has been sent; one that is a part of another, an account of
/// the same project.
///
/// An answer of which more is in memory than was held for it, such as a list of rows, is held now, or is not sent. Only
/// a small one that tells of a change is sent in any case: nobody would know what was done. Whatever is sent to a
/// project counts as its call until the peer has it, so that answers that nobody takes are as many as its calls.
pub(crate) async fn account(State(budget): State<Budget>, request: Request, next: Next) -> Response {
    let changes_nothing = request.method().is_safe();
    let account = Account::current().map_or_else(|| budget.account(), |whole| whole.another());
    let mut response = account.clone().scope(next.run(request)).await;
    let length = response.body().size_hint().exact();
    let in_memory = length.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    // What nobody in particular is answered, such as the documentation, is the same bytes for all.
    if length.is_some() && !account.has_owner() && account.held() == 0 {
        return response;
    }
    let more = in_memory.saturating_sub(account.held());
    // Not waited for: what is in memory meanwhile would be held by nobody.
    if more > 0
        && account.has_owner()
        && let Err(exhausted) = account.try_hold(more)
        && (changes_nothing || in_memory > SMALL)
    {
        response = Refusal::from(exhausted).into_response();
    }
    response.map(|body| Body::new(Kept::new(body, account)))
}
