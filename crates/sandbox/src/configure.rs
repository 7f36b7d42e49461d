//! The last step: the guest gets what belongs to its owner.

use emergent_guest_client::{Guest, GuestCallError};
use emergent_guest_proto::Configuration;
use emergent_types::{CreateStep, SandboxId, StepObserver};

/// Makes the sandbox its owner's: the guest gets the environment, the rights and the defaults. Repeating it changes
/// nothing.
///
/// # Errors
/// [`GuestCallError`]; the guest may then have a part of it, so that the sandbox must not become anybody else's.
pub async fn configure(
    guest: &Guest,
    sandbox: SandboxId,
    configuration: &Configuration,
    steps: &dyn StepObserver,
) -> Result<(), GuestCallError> {
    guest.configure(configuration).await?;
    steps.created(sandbox, CreateStep::HandedOver);
    Ok(())
}
