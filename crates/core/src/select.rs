//! Which provider makes a workspace.

use emergent_provider::ProviderKind;

/// Whether a provider can be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Availability {
    Available,
    /// Not, and why.
    Unavailable(String),
}

/// Why no provider was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unselected {
    /// The one that was named is unavailable: a named provider never falls back.
    Named { provider: ProviderKind, reason: String },
    /// All are.
    All(Vec<(ProviderKind, String)>),
}

/// The order of choice where nobody names a provider: the strongest isolation of our own first.
pub(crate) const PREFERENCE: [ProviderKind; 3] = [ProviderKind::Firecracker, ProviderKind::Gvisor, ProviderKind::E2b];

/// The providers that come into question, in order.
pub(crate) fn candidates(named: Option<ProviderKind>) -> Vec<ProviderKind> {
    named.map_or_else(|| PREFERENCE.to_vec(), |provider| vec![provider])
}

/// The first that is available.
pub(crate) fn select(
    named: Option<ProviderKind>,
    candidates: Vec<(ProviderKind, Availability)>,
) -> Result<ProviderKind, Unselected> {
    let mut reasons = Vec::new();
    for (provider, availability) in candidates {
        match availability {
            Availability::Available => return Ok(provider),
            Availability::Unavailable(reason) => reasons.push((provider, reason)),
        }
    }
    match (named, reasons.pop()) {
        (Some(_), Some((provider, reason))) => Err(Unselected::Named { provider, reason }),
        (_, last) => {
            reasons.extend(last);
            Err(Unselected::All(reasons))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(reason: &str) -> Availability {
        Availability::Unavailable(reason.to_owned())
    }

    #[test]
    fn automatic_choice_takes_the_first_that_works() {
        let states = candidates(None).into_iter().map(|kind| match kind {
            ProviderKind::Firecracker => (kind, down("no kvm")),
            ProviderKind::Gvisor | ProviderKind::E2b => (kind, Availability::Available),
        });
        assert_eq!(select(None, states.collect()), Ok(ProviderKind::Gvisor));
    }

    #[test]
    fn a_named_provider_never_falls_back() {
        let named = Some(ProviderKind::Firecracker);
        assert_eq!(candidates(named), [ProviderKind::Firecracker]);
        let refused = select(named, vec![(ProviderKind::Firecracker, down("no kvm"))]);
        let expected = Unselected::Named { provider: ProviderKind::Firecracker, reason: "no kvm".into() };
        assert_eq!(refused, Err(expected));
    }

    #[test]
    fn when_none_works_every_reason_is_told() {
        let states = candidates(None).into_iter().map(|kind| (kind, down("down"))).collect();
        let Err(Unselected::All(reasons)) = select(None, states) else { panic!("one was selected") };
        assert_eq!(reasons.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>(), PREFERENCE);
    }
}
