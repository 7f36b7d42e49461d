//! The images that a project may use, and the images that were pulled for it.
//!
//! The operator's images (the default one, pooled ones) are everybody's. Any other image that the engine has is used by
//! a project only if that project has pulled it, or if nobody has and `WORKSPACE_ALLOWED_IMAGES` names it: an engine
//! may have images that are nobody's business here, and what one project has pulled with its login another one pulls
//! with its own.

use chrono::{DateTime, TimeDelta, Utc};
use emergent_provider::{ImageAccess, ImageRef, OperationError, Provider, RegistryCredentials, SandboxSpec, UsedImage};
use emergent_store::{ProjectId, PulledImage, Store, StoreError};
use emergent_types::error_chain;

use crate::placement::{
    allowed_images::{AllowedImages, InvalidPattern},
    providers::Providers,
};

/// The registry of images that name none.
const DEFAULT_REGISTRY: &str = "docker.io";

/// How to log in to a registry.
#[derive(Debug, Clone)]
pub struct RegistryLogin {
    /// The registry, as references name it; `docker.io` for those that name none.
    pub host: String,
    /// The project that alone may use it, by its name; `None` for every project.
    pub project: Option<String>,
    /// The login.
    pub credentials: RegistryCredentials,
}

/// The images that projects may use.
pub struct Images {
    store: Store,
    operators: Vec<ImageRef>,
    admitted: AllowedImages,
    logins: Vec<RegistryLogin>,
}

/// A project's use of an image, between the look at the rows and the end of a create.
#[derive(Debug)]
#[must_use = "what comes of it is to be recorded"]
pub struct ImageUse {
    project: ProjectId,
    image: ImageRef,
    access: ImageAccess,
    login: Option<RegistryCredentials>,
}

/// The reason for which a project may not use an image, or for which that is not known.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The engine has it, and not from this server.
    #[error(
        "image {0} is on the engine, and was pulled for no project; the operator admits it by adding it to \
         WORKSPACE_ALLOWED_IMAGES"
    )]
    NotAdmitted(ImageRef),
    /// The engine did not say.
    #[error("the engine could not be asked for the image")]
    Engine(#[from] OperationError),
    /// The store failed.
    #[error("what was pulled could not be looked up or recorded")]
    Store(#[from] StoreError),
}

// === impl Images ===

impl Images {
    /// Makes the rules from the images that the operator names and the globs of further ones that are allowed.
    pub(crate) fn new(
        store: Store,
        operators: Vec<ImageRef>,
        allowed: &[String],
        logins: Vec<RegistryLogin>,
    ) -> Result<Self, InvalidPattern> {
        Ok(Self { store, operators, admitted: AllowedImages::new(allowed)?, logins })
    }

    /// The images that the operator names.
    pub(crate) fn admitted(&self) -> &AllowedImages {
        &self.admitted
    }

    /// Whether requests may name an image at all.
    pub fn allow(&self, image: &ImageRef) -> bool {
        self.operators.contains(image) || self.admitted.contain(image)
    }

    /// Looks whether a project may use an image of a provider's, before it is pulled or a sandbox is made from it. What
    /// comes of that is to be told with [`record`](Self::record) or [`give_up`](Self::give_up).
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn begin(
        &self,
        project: ProjectId,
        image: &ImageRef,
        provider: &dyn Provider,
    ) -> Result<ImageUse, ImageError> {
        let taken = |access, login| ImageUse { project, image: image.clone(), access, login };
        if self.operators.contains(image) || !provider.pulls_images() {
            return Ok(taken(ImageAccess::Operator, self.operators_login(image)));
        }
        let pulled = self.store.pulled_images(image).await?;
        if pulled.is_empty() && provider.image_id(image).await?.is_some() {
            let is_admitted = self.admitted.name(image);
            return match is_admitted {
                true => Ok(taken(ImageAccess::Admitted, None)),
                false => Err(ImageError::NotAdmitted(image.clone())),
            };
        }
        let login = self.login(project, image).await?;
        self.store.pulled_images_begin(project, image).await?;
        let own = pulled.into_iter().filter(|pulled| pulled.project == project);
        let newest = own.filter_map(|pulled| Some((pulled.last_used_at, pulled.id?))).max();
        Ok(taken(ImageAccess::Pulled(newest.map(|(_, id)| id)), login))
    }

    /// Records that a sandbox was made from an image.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn record(&self, begun: &ImageUse, made_from: Option<&UsedImage>) -> Result<(), StoreError> {
        match (&begun.access, made_from) {
            (ImageAccess::Pulled(_), Some(UsedImage { id, bytes })) => {
                self.store.pulled_images_record(begun.project, &begun.image, id, *bytes).await
            }
            _ => Ok(()),
        }
    }

    /// Takes back what [`begin`](Self::begin) has recorded, since nothing was made. A row that stays is an image's that
    /// may be pulled again, and goes as unused ones do.
    pub async fn give_up(&self, begun: &ImageUse) {
        if begun.access == ImageAccess::Pulled(None)
            && let Err(error) = self.store.pulled_images_give_up(begun.project, &begun.image).await
        {
            tracing::warn!(reason = error_chain(&error), "the record of a failed pull could not be removed");
        }
    }

    /// How to log in to the registry of an image of the operator's.
    pub(crate) fn operators_login(&self, image: &ImageRef) -> Option<RegistryCredentials> {
        self.logins_of(image).find(|login| login.project.is_none()).map(|login| login.credentials.clone())
    }

    /// How a project logs in to an image's registry: with its own login, or else with everybody's.
    async fn login(&self, project: ProjectId, image: &ImageRef) -> Result<Option<RegistryCredentials>, StoreError> {
        if self.logins_of(image).any(|login| login.project.is_some()) {
            let name = self.store.projects_name(project).await?;
            let own = self.logins_of(image).find(|login| login.project.as_ref() == Some(&name));
            if let Some(own) = own {
                return Ok(Some(own.credentials.clone()));
            }
        }
        Ok(self.operators_login(image))
    }

    fn logins_of(&self, image: &ImageRef) -> impl Iterator<Item = &RegistryLogin> {
        let host = image.registry_host().unwrap_or(DEFAULT_REGISTRY).to_owned();
        self.logins.iter().filter(move |login| login.host == host)
    }

    /// Removes images that were pulled for projects and that nothing was made from for long.
    pub(crate) async fn remove_unused(&self, providers: &Providers, unused_for: TimeDelta) {
        let Some(before) = Utc::now().checked_sub_signed(unused_for) else { return };
        let unused = match self.store.pulled_images_unused(before).await {
            Ok(unused) => unused,
            Err(error) => {
                return tracing::warn!(reason = error_chain(&error), "unused images could not be listed");
            }
        };
        for image in unused {
            if let Err(error) = self.remove_unused_image(providers, &image, before).await {
                tracing::warn!(image = %image.image, reason = error_chain(&error), "an unused image could not be removed");
            }
        }
    }

    async fn remove_unused_image(
        &self,
        providers: &Providers,
        image: &PulledImage,
        before: DateTime<Utc>,
    ) -> Result<(), ImageError> {
        let known = self.store.pulled_images(&image.image).await?;
        let is_shared = known.iter().any(|other| other.id == image.id && other.last_used_at >= before);
        let pulling = providers.iter().filter(|registered| registered.provider.pulls_images());
        if let (Some(id), false) = (&image.id, is_shared) {
            for registered in pulling {
                if !registered.provider.remove_image(&image.image, id).await? {
                    // Something that was made from it is still there.
                    return Ok(());
                }
            }
        }
        if self.store.pulled_images_forget(image.project, &image.image, before).await? {
            tracing::info!(image = %image.image, project = %image.project, "an image that nobody used is removed");
        }
        Ok(())
    }
}

// === impl ImageUse ===

impl ImageUse {
    /// The spec of a sandbox that may use the image.
    #[must_use]
    pub fn apply(&self, spec: &SandboxSpec) -> SandboxSpec {
        SandboxSpec { access: self.access.clone(), registry: self.login.clone(), ..spec.clone() }
    }
}
