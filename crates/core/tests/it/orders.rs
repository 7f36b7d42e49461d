//! A create, the destroy of the same workspace, and a store that takes no states for a while, in every order: whoever
//! was told that the workspace is destroyed finds it so, and no sandbox is left without a workspace.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use emergent_core::{CoreConfig, ErrorReason, NewWorkspace, TransitionError, WorkspaceId, WorkspaceState};
use emergent_provider::EngineState;
use emergent_test_interleavings::{Who, of};
use futures::{StreamExt as _, stream};
use sea_orm::{ConnectionTrait as _, DatabaseConnection};

use crate::{
    engine_away::healthy,
    guest::{GREETS, TAKES_OVER},
    support::{Fixture, config, eventually},
};

/// The points of a create at which something else may happen, and the one at which its remains or the workspace go.
const GATES: [&str; 7] =
    [PULL, "create.volume_created", "create.sandbox_created", "create.sandbox_started", GREETS, TAKES_OVER, "destroy"];
/// The point until which a destroy does not wait for a create.
const PULL: &str = "create.image_present";
/// The point before a workspace, or what there is of it, is removed from the engine.
const REMOVAL: &str = "destroy";
/// The number of races that are under way at a time.
const TOGETHER: usize = 64;
/// The time in which a create or a destroy ends that nothing holds up.
const ENDS: Duration = Duration::from_secs(20);

/// An event beside a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Somebody asks for the workspace's destruction.
    Destroy,
    /// The store takes no state of the workspace any more.
    Break,
    /// The store does again.
    Mend,
}

/// A service with closed gates, and a database that can be told to fail.
struct Ground {
    fixture: Fixture,
    database: DatabaseConnection,
}

/// A race between the create of one workspace and some events.
struct Race<'a> {
    ground: &'a Ground,
    id: WorkspaceId,
    /// The outcome of the create is known.
    made: tokio::task::JoinHandle<()>,
    /// The answer to the destroy, if one was asked for.
    destroyed: Option<Arc<OnceLock<Result<(), TransitionError>>>>,
}

// === impl Ground ===

impl Ground {
    async fn new() -> Self {
        let fixture = Fixture::start_with(CoreConfig { max_concurrent: 1_000, ..config() }).await;
        GATES.iter().for_each(|gate| fixture.engine.hold(gate));
        let database = fixture.connect().await;
        let fails = "CREATE TABLE broken (id BLOB PRIMARY KEY); \
                     CREATE TRIGGER breaks BEFORE UPDATE ON agent_workspaces \
                     WHEN NEW.id IN (SELECT id FROM broken) BEGIN SELECT RAISE(ABORT, 'told to'); END;";
        database.execute_unprepared(fails).await.unwrap();
        Self { fixture, database }
    }

    async fn set_broken(&self, id: WorkspaceId, broken: bool) {
        let id = format!("x'{}'", id.as_uuid().simple());
        let change = match broken {
            true => format!("INSERT INTO broken VALUES ({id})"),
            false => format!("DELETE FROM broken WHERE id = {id}"),
        };
        assert_eq!(self.database.execute_unprepared(&change).await.unwrap().rows_affected(), 1);
    }

    /// Carries out a create with these events in every order.
    async fn explore(&self, events: &[Event]) {
        let orders = of(GATES.len(), events.len());
        let races = stream::iter(orders).map(|order| async move {
            let mut race = Race::begin(self).await;
            race.comes_to_rest(&order).await;
            let (mut gates, mut events) = (GATES.into_iter(), events.iter());
            for who in &order {
                match who {
                    Who::One => race.move_on(gates.next().unwrap()),
                    Who::Other => race.happens(*events.next().unwrap()).await,
                }
                race.comes_to_rest(&order).await;
            }
            race.was_told_the_truth(&order).await;
            (race.id, order)
        });
        let raced = races.buffer_unordered(TOGETHER).collect::<Vec<_>>().await;
        self.compare().await;
        for (id, order) in raced {
            self.is_accounted_for(id, &format!("{events:?}, {order:?}")).await;
        }
        assert!(self.fixture.engine.sandboxes().is_empty());
    }

    /// Has the service compare its rows with the engine, as it does when the engine has been away.
    async fn compare(&self) {
        self.fixture.engine.set_away(true);
        eventually("unhealthy", async || !healthy(&self.fixture).await).await;
        self.fixture.engine.set_away(false);
        eventually("healthy", async || healthy(&self.fixture).await).await;
    }

    /// A race is over: its workspace runs, is gone, or has the reason for which it was never made; nothing else is
    /// left.
    async fn is_accounted_for(&self, id: WorkspaceId, race: &str) {
        let fixture = &self.fixture;
        // What the store did not take is recorded a while after it does again.
        eventually(race, async || match (fixture.get(id).await.row.state, fixture.engine.state(id)) {
            (WorkspaceState::Ready, Some(EngineState::Running)) | (WorkspaceState::Destroyed, None) => true,
            (WorkspaceState::Error { reason, .. }, None) => {
                assert_eq!(reason, ErrorReason::CreateFailed, "{race}");
                true
            }
            _ => false,
        })
        .await;
        fixture.service.destroy(fixture.project, id).await.unwrap();
        assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Destroyed, "{race}");
        assert_eq!(fixture.engine.state(id), None, "{race}");
    }
}

// === impl Race ===

impl<'a> Race<'a> {
    async fn begin(ground: &'a Ground) -> Self {
        let (service, project) = (ground.fixture.service.clone(), ground.fixture.project);
        let id = service.create(project, NewWorkspace::default(), None).await.unwrap().row.id;
        let made = tokio::spawn(async move { drop(service.wait_ready(project, id, ENDS).await) });
        Self { ground, id, made, destroyed: None }
    }

    /// Lets the create pass a gate.
    fn move_on(&self, gate: &'static str) {
        self.ground.fixture.engine.gates().open_for(self.id, gate);
    }

    async fn happens(&mut self, event: Event) {
        match event {
            Event::Destroy => {
                let (service, project, id) =
                    (self.ground.fixture.service.clone(), self.ground.fixture.project, self.id);
                let answer = Arc::default();
                self.destroyed = Some(Arc::clone(&answer));
                tokio::spawn(async move { answer.set(service.destroy(project, id).await).unwrap() });
            }
            Event::Break => self.ground.set_broken(self.id, true).await,
            Event::Mend => self.ground.set_broken(self.id, false).await,
        }
    }

    /// Waits until nothing goes on by itself any more: create and destroy have ended, or wait at a gate or for each
    /// other.
    async fn comes_to_rest(&self, order: &[Who]) {
        eventually(&format!("{order:?}: rest"), async || {
            let waiting = self.ground.fixture.engine.gates().waiting(self.id);
            let answered = self.destroyed.as_ref().is_none_or(|answer| answer.get().is_some());
            let begun = matches!(self.state().await, WorkspaceState::Destroying | WorkspaceState::Destroyed);
            if waiting.is_empty() {
                // A destroy that has begun has the turn, so that the create has ended.
                answered && (begun || self.made.is_finished())
            } else {
                // Who removes the remains of a create has the turn, too: a destroy waits for that before it begins.
                answered || (begun && !waiting.contains(PULL)) || waiting.contains(REMOVAL)
            }
        })
        .await;
    }

    /// Checks the answer to the destroy: the workspace is gone, as was told, or the store has failed.
    async fn was_told_the_truth(&self, order: &[Who]) {
        match self.destroyed.as_ref().map(|answer| answer.get().unwrap()) {
            Some(Ok(())) => {
                assert_eq!(self.state().await, WorkspaceState::Destroyed, "{order:?}");
                assert_eq!(self.ground.fixture.engine.state(self.id), None, "{order:?}");
            }
            Some(Err(error)) => assert!(matches!(error, TransitionError::Store(_)), "{order:?}: {error:?}"),
            None => {}
        }
    }

    async fn state(&self) -> WorkspaceState {
        self.ground.fixture.get(self.id).await.row.state
    }
}

#[tokio::test]
async fn a_destroy_at_any_point_of_a_create_leaves_nothing() {
    Ground::new().await.explore(&[Event::Destroy]).await;
}

#[tokio::test]
async fn a_store_that_fails_at_any_point_of_a_create_leaves_a_workspace_or_its_reason() {
    Ground::new().await.explore(&[Event::Break, Event::Mend]).await;
}

#[tokio::test]
async fn a_destroy_of_a_create_whose_store_fails_is_done_or_told_whatever_comes_first() {
    let ground = Ground::new().await;
    for events in [
        [Event::Destroy, Event::Break, Event::Mend],
        [Event::Break, Event::Destroy, Event::Mend],
        [Event::Break, Event::Mend, Event::Destroy],
    ] {
        ground.explore(&events).await;
    }
}
