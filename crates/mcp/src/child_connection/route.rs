//! The routes of a child's messages: each goes to the client that it is for, and to no other.
//!
//! An answer belongs to its request and progress to its token. Nothing on stdio says to which request a log message or
//! a request of the child belongs: such a message is delivered when only one client can be meant, and otherwise not at
//! all (a request is then refused).

use std::sync::{Arc, Weak, atomic::Ordering};

use bytes::Bytes;
use emergent_budget::values_in;
use tokio::time::Instant;

use super::{ChildConnection, Pending, Serves, State};
use crate::{
    envelope::{IdKey, Kind, LONGEST_NAME, MOST_VALUES, Malformed, Message, part_of},
    event::BridgeEvent,
    event_buffer::{EventBuffer, Receipt},
    lines::{Dropped, Line, Why},
    rpc,
    session_client::SessionClient,
};

/// The stream that one message goes to, and the message.
type Delivery = (Arc<EventBuffer>, Bytes);

/// The receipt that a message holds until its client has it.
type Held = Option<Arc<Receipt>>;

impl ChildConnection {
    /// Delivers one line; its receipt is dropped when its recipient has it.
    pub(super) async fn route(&self, line: Line, receipt: Held) {
        let bytes = match line {
            Line::Dropped(dropped) => return self.dropped(&dropped),
            Line::Whole(bytes) if bytes.trim_ascii().is_empty() => return,
            // Blanks around a message would be kept with it.
            Line::Whole(bytes) => part_of(&bytes, bytes.trim_ascii()),
        };
        match Message::parse(bytes.clone()) {
            Ok(message) => self.take(message, receipt).await,
            Err(Malformed::Batch) if values_in(&bytes) > MOST_VALUES => {
                self.dropped(&Dropped::whole(&bytes, Why::TooManyValues));
            }
            Err(Malformed::Batch) => {
                for message in Message::batch(&bytes) {
                    match message {
                        Ok(message) => self.take(message, receipt.clone()).await,
                        Err(_) => self.rubbish(),
                    }
                }
            }
            Err(_) => self.rubbish(),
        }
    }

    async fn take(&self, message: Message, receipt: Held) {
        match message.kind.clone() {
            Kind::Result | Kind::Error { .. } => self.answered(message, receipt).await,
            Kind::Request(method) => self.asked(message, &method, receipt).await,
            Kind::Notification(method) => self.told(message, &method, receipt).await,
        }
    }

    async fn answered(&self, message: Message, receipt: Held) {
        let found = {
            let mut state = self.lock();
            match message.key() {
                Some(key) => {
                    let key = Some(key.clone()).filter(|k| state.pending.contains_key(k)).or_else(|| key.unquoted());
                    key.and_then(|key| state.take(&key))
                }
                // What the child could not read has no id; with one request in flight it was that one.
                None => {
                    let only = (state.pending.len() == 1).then(|| state.pending.keys().next().cloned()).flatten();
                    only.and_then(|key| state.take(&key))
                }
            }
        };
        let Some(pending) = found else {
            // An answer to a request from before a restart: its client finds it when it resumes.
            if self.adopted
                && let Some(session) = self.only_session()
            {
                session.standing.push(message.line, false, receipt).await;
            }
            return;
        };
        self.context.note_answer();
        let line = if message.id.is_none() {
            self.with_id(&message, &pending)
        } else if message.raw_id() == Some(&pending.id) {
            message.line.clone()
        } else {
            message.with([(message.id.clone(), pending.id.to_string())])
        };
        pending.event_buffer.push(line, true, receipt).await;
    }

    /// Gives an error without an id the id of the request that it must be about.
    fn with_id(&self, message: &Message, pending: &Pending) -> Bytes {
        let text = String::from_utf8_lossy(&message.line);
        tracing::debug!(child = %self.id(), %text, "an error without an id");
        let code = if let Kind::Error { code } = message.kind { code } else { rpc::INTERNAL_ERROR };
        rpc::error(Some(&pending.id), code, "the server could not read the request")
    }

    async fn asked(&self, message: Message, method: &str, receipt: Held) {
        let (Some(id), Some(key)) = (message.raw_id().map(str::to_owned), message.key()) else { return };
        if message.has_long_id() {
            let text = format!("the id of a request has at most {LONGEST_NAME} bytes");
            // From the reader, which must not wait for a child that writes and does not read.
            self.try_send(&rpc::error(None, rpc::INVALID_REQUEST, &text));
            return;
        }
        let delivery = {
            let mut state = self.lock();
            let session = match self.serves {
                Serves::Requests => None,
                Serves::Session => state.sessions.first().and_then(Weak::upgrade),
                Serves::Sessions => state.only_candidate(),
            };
            let session = session.filter(|session| session.takes(method));
            // Nobody needs to be connected for the child to know that we are there.
            let session = session.filter(|session| method != "ping" || session.is_connected());
            let full = state.asked.len() >= self.context.config.max_in_flight;
            session.filter(|_| !full).map(|session| {
                state.asked.insert(key, Arc::downgrade(&session));
                state.related(&session)
            })
        };
        match delivery {
            Some(event_buffer) => event_buffer.push(message.line, false, receipt).await,
            None => {
                let answer = if method == "ping" {
                    rpc::empty_result(&id)
                } else if self.serves == Serves::Requests {
                    rpc::error(Some(&id), rpc::METHOD_NOT_FOUND, "this client takes no requests")
                } else {
                    let text = "the request cannot be attributed to one client";
                    rpc::error(Some(&id), rpc::INTERNAL_ERROR, text)
                };
                // From the reader, which must not wait for a child that writes and does not read.
                self.try_send(&answer);
            }
        }
    }

    async fn told(&self, message: Message, method: &str, receipt: Held) {
        if method == "notifications/tools/list_changed" {
            self.tools_changed.store(true, Ordering::Release);
        }
        let deliveries = {
            let mut state = self.lock();
            match method {
                "notifications/progress" => state.progress(&message),
                "notifications/cancelled" => state.cancelled(&message, self.serves),
                _ if self.serves == Serves::Requests => state.for_requests(&message, method),
                "notifications/message" => state.for_one(&message),
                "notifications/resources/updated" => {
                    let uri = message.params().uri.and_then(crate::envelope::string_of).unwrap_or_default();
                    let alone = self.serves == Serves::Session;
                    state.for_all(&message, |session| alone || session.is_subscribed(&uri))
                }
                _ if method.ends_with("/list_changed") || self.serves == Serves::Session => {
                    state.for_all(&message, |_| true)
                }
                _ => state.for_one(&message),
            }
        };
        if deliveries.is_empty()
            && self.adopted
            && let Some(session) = self.only_session()
        {
            return session.standing.push(message.line, false, receipt).await;
        }
        for (event_buffer, line) in deliveries {
            event_buffer.push(line, false, receipt.clone()).await;
        }
    }

    /// The session of a child that serves only one.
    fn only_session(&self) -> Option<Arc<SessionClient>> {
        (self.serves == Serves::Session).then(|| self.lock().sessions.first().and_then(Weak::upgrade)).flatten()
    }

    /// Tells the caller whose answer was dropped, or the child whose question was.
    fn dropped(&self, dropped: &Dropped) {
        let (bytes, limit) = (dropped.length, self.context.config.line_limit);
        let why = match dropped.why {
            Why::TooLong => format!("more than the limit of {limit}"),
            Why::TooManyValues => format!("and is a batch of more than the limit of {MOST_VALUES} values"),
            Why::Unheld(exhausted) => format!("and could not be held: {exhausted}"),
        };
        tracing::warn!(child = %self.id(), bytes, why, "a message of an MCP server was dropped");
        if dropped.has_method() {
            if let Some(id) = dropped.id() {
                let text = format!("the request has {bytes} bytes, {why}");
                // From the reader, which must not wait for a child that writes and does not read.
                self.try_send(&rpc::error(Some(&id), rpc::INVALID_REQUEST, &text));
            }
            return;
        }
        let found = {
            let mut state = self.lock();
            let key = dropped.id().map(|id| IdKey::of(&id)).filter(|key| state.pending.contains_key(key));
            let only = || (state.pending.len() == 1).then(|| state.pending.keys().next().cloned()).flatten();
            let key = key.or_else(only);
            key.and_then(|key| state.take(&key))
        };
        if let Some(pending) = found {
            let text = format!("the server's answer has {bytes} bytes, {why}; it was dropped");
            pending.event_buffer.push_now(rpc::error(Some(&pending.id), rpc::INTERNAL_ERROR, &text), true);
        }
    }

    /// Tells the owner, once, that the child writes something that is no message.
    fn rubbish(&self) {
        if !std::mem::replace(&mut self.lock().rubbish, true) {
            self.context.tell(BridgeEvent::Rubbish { child: self.id().clone() });
        }
    }

    /// Whether another session that shares the child wants the resource that this message names.
    pub(crate) fn others_want(&self, session: &Arc<SessionClient>, message: &Message) -> bool {
        let Some(uri) = message.params().uri.and_then(crate::envelope::string_of) else { return false };
        let sessions: Vec<_> = self.lock().sessions.iter().filter_map(Weak::upgrade).collect();
        sessions.iter().any(|other| !Arc::ptr_eq(other, session) && other.is_subscribed(&uri))
    }

    /// Whether the child has asked this session the request that the answer is for; the answer may then be sent, once.
    pub(crate) fn was_asked(&self, session: &Arc<SessionClient>, answer: &Message) -> bool {
        let Some(key) = answer.key() else { return false };
        let mut state = self.lock();
        let asked = state.asked.get(&key).is_some_and(|one| one.as_ptr() == Arc::as_ptr(session));
        if asked {
            state.asked.remove(&key);
        }
        // What was asked before a restart is not remembered, but there is only one that can have been asked.
        asked || (self.adopted && self.serves == Serves::Session)
    }
}

impl State {
    fn progress(&mut self, message: &Message) -> Vec<Delivery> {
        let params = message.params();
        let Some(token) = params.progress_token else { return Vec::new() };
        let known = IdKey::of(token.get());
        let key = self.tokens.get(&known).or_else(|| known.unquoted().and_then(|known| self.tokens.get(&known)));
        let Some(pending) = key.cloned().and_then(|key| self.pending.get_mut(&key)) else { return Vec::new() };
        if !pending.cancelled {
            pending.until = pending.patience.map(|patience| Instant::now() + patience);
        }
        let own = pending.token.as_ref().map(|(_, own)| own.to_string());
        let place = message.place(token).filter(|_| own.as_deref() != Some(token.get()));
        vec![(Arc::clone(&pending.event_buffer), message.with([(place, own.unwrap_or_default())]))]
    }

    /// Handles a child's word that it gives up a request to a client, or ends a subscription.
    fn cancelled(&mut self, message: &Message, serves: Serves) -> Vec<Delivery> {
        let params = message.params();
        let Some(wanted) = params.request_id else { return Vec::new() };
        let key = IdKey::of(wanted.get());
        if let Some(session) = self.asked.remove(&key).and_then(|session| session.upgrade()) {
            return vec![(self.related(&session), message.line.clone())];
        }
        if serves == Serves::Requests
            && let Some(pending) = self.take(&key)
        {
            let line = message.with([(message.place(wanted), pending.id.to_string())]);
            pending.event_buffer.push_now(line, true);
        }
        Vec::new()
    }

    /// Delivers a message to the subscription that it names, or to the only request that can be meant.
    fn for_requests(&mut self, message: &Message, method: &str) -> Vec<Delivery> {
        if let Some(tag) = message.params().meta().and_then(|meta| meta.subscription) {
            let known = IdKey::of(tag.get());
            let exact = self.pending.get(&known);
            let Some(pending) = exact.or_else(|| self.pending.get(&known.unquoted()?)) else { return Vec::new() };
            // Text stays text: some peers take an id for a number, others for a string.
            let id = match (tag.get().starts_with('"'), pending.id.starts_with('"')) {
                (true, false) => format!("\"{}\"", pending.id),
                _ => pending.id.to_string(),
            };
            return vec![(Arc::clone(&pending.event_buffer), message.with([(message.place(tag), id)]))];
        }
        let log = method == "notifications/message";
        let listening = |pending: &&Pending| pending.method.as_ref() == "subscriptions/listen";
        let mut meant = self.pending.values().filter(|pending| !listening(pending) && (!log || pending.logs));
        match (meant.next(), meant.next()) {
            (Some(pending), None) => vec![(Arc::clone(&pending.event_buffer), message.line.clone())],
            _ => Vec::new(),
        }
    }

    fn for_one(&mut self, message: &Message) -> Vec<Delivery> {
        let session = self.only_candidate();
        session.map(|session| (self.related(&session), message.line.clone())).into_iter().collect()
    }

    fn for_all(&mut self, message: &Message, wants: impl Fn(&SessionClient) -> bool) -> Vec<Delivery> {
        let sessions: Vec<_> =
            self.sessions.iter().filter_map(Weak::upgrade).filter(|session| wants(session)).collect();
        let event_buffer = |session: Arc<SessionClient>| {
            let apart = session.standing.is_read();
            (if apart { Arc::clone(&session.standing) } else { self.related(&session) }, message.line.clone())
        };
        sessions.into_iter().map(event_buffer).collect()
    }

    /// The session that a message without an address must be for: the only one, or the only one that waits for an
    /// answer.
    fn only_candidate(&self) -> Option<Arc<SessionClient>> {
        let mut all = self.sessions.iter().filter_map(Weak::upgrade);
        if let (Some(only), None) = (all.next(), all.next()) {
            return Some(only);
        }
        let mut waiting = self.pending.values().filter_map(|pending| pending.session.as_ref());
        let first = waiting.next()?;
        waiting.all(|other| other.ptr_eq(first)).then(|| first.upgrade()).flatten()
    }

    /// The stream of a session on which a message of its child arrives: that of its only request, else the standing
    /// one, else that of any request.
    fn related(&self, session: &Arc<SessionClient>) -> Arc<EventBuffer> {
        let of_session = |p: &&Pending| p.session.as_ref().is_some_and(|s| s.as_ptr() == Arc::as_ptr(session));
        let mut waiting = self.pending.values().filter(of_session).map(|p| &p.event_buffer).filter(|o| o.is_read());
        match (waiting.next(), waiting.next()) {
            (Some(only), None) => Arc::clone(only),
            (Some(any), Some(_)) if !session.standing.is_read() => Arc::clone(any),
            _ => Arc::clone(&session.standing),
        }
    }
}
