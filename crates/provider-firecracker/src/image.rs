//! The images of microVMs, which are templates: root file systems that were built before.

use emergent_provider::ImageRef;

/// The name of the default image's template.
const DEFAULT: &str = "default";

/// Returns the name of an image's template, for `emergent image build --name`.
pub(crate) fn template_name(image: &ImageRef) -> String {
    image.as_str().replace(['/', ':', '@'], "-")
}

/// Returns the existing template for an image: its own, or for the default image the default one.
pub(crate) fn template_for(image: &ImageRef, default_image: &ImageRef, templates: &[String]) -> Option<String> {
    let own = template_name(image);
    let fallback = (image == default_image).then_some(DEFAULT);
    // A reference without a tag means the latest one, and its template may be called without it, too.
    let wanted = [Some(own.as_str()), own.strip_suffix("-latest"), fallback];
    wanted.into_iter().flatten().find(|name| templates.iter().any(|there| there == name)).map(str::to_owned)
}

/// Returns a remedy for an image that has no template.
pub(crate) fn advice(image: &ImageRef) -> String {
    format!("it has no template; make one with `emergent image build --name {} --from {image}`", template_name(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_its_own_template_or_the_default_one() {
        let (default, other): (ImageRef, ImageRef) = ("a/b:1".parse().unwrap(), "c:2".parse().unwrap());
        let there = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(template_for(&default, &default, &there(&["default"])).as_deref(), Some("default"));
        assert_eq!(template_for(&default, &default, &there(&["default", "a-b-1"])).as_deref(), Some("a-b-1"));
        assert_eq!(template_for(&other, &default, &there(&["default"])), None);
        assert_eq!(template_for(&other, &default, &there(&["c-2"])).as_deref(), Some("c-2"));
        let latest: ImageRef = "ubuntu".parse().unwrap();
        assert_eq!(template_for(&latest, &default, &there(&["ubuntu"])).as_deref(), Some("ubuntu"));
        assert_eq!(
            template_for(&latest, &default, &there(&["ubuntu", "ubuntu-latest"])).as_deref(),
            Some("ubuntu-latest")
        );
    }
}
