//! The choice of the provider and the image that a workspace is made with.

pub(crate) mod allowed_images;
pub(crate) mod images;
pub(crate) mod providers;
pub(crate) mod requirements;
pub(crate) mod selection;
pub(crate) mod status;
